"""Trains a source model and judges it beside what needs no training of its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch

from mr_core import baselines
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.builtin.feature_map_source import FeatureMapSource, base_arguments, map_shape
from mr_core.backbones.builtin.pixel_source import PixelSource
from mr_core.backbones.description import ON_FEATURE_MAP, BackboneDescription
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.weights import state_sha256
from mr_core.errors import DatasetError, SpecError
from mr_core.evaluation import evaluate, predict_logits
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.outcome import BackboneContent, JobOutcome, SpectrumContent
from mr_core.jobs.places import divided
from mr_core.jobs.preparation import stock_backbone
from mr_core.jobs.stopwatch import Stopwatch
from mr_core.jobs.train_source.data import SourceData, read_maps, read_pixels
from mr_core.jobs.train_source.kernel import infinite_width_summary, kernel_sample, network_spectrum
from mr_core.jobs.train_source.spec import TrainSourceSpec
from mr_core.jobs.train_source.verdict import judge
from mr_core.observer import Checkpoint
from mr_core.plots import train_source_artifacts
from mr_core.predictions import predictions_file
from mr_core.provenance import provenance
from mr_core.reprogrammed import SourceInTraining
from mr_core.sources.mlp.spec import MlpSpec
from mr_core.threads import threads_for
from mr_core.trainers.trainer import TrainingHistory, TrainingRun


def train_source(spec: TrainSourceSpec, context: JobContext) -> JobOutcome:
    """Build, train, evaluate once on the test split, compare; the outcome holds the backbone.

    Raises DatasetError (one class), SpecError (the network does not fit its input, the backbone has no map),
    BackboneError, KernelError and TrainingDiverged.
    """
    watch, observer, classes = Stopwatch(context.observer), context.observer, context.dataset.classes
    _require_classes(context)

    watch.begin("embedding")
    backbone = initial_backbone(spec, context)
    source = backbone.source
    assert isinstance(source, PixelSource | FeatureMapSource)
    frozen = source.base if isinstance(source, FeatureMapSource) else None
    before = state_sha256(frozen) if frozen is not None else None
    backbone.to(context.device)
    places = divided(context.dataset, validation_fraction=spec.evaluation.validation_fraction, seed=spec.seed)
    if frozen is None:
        data = read_pixels(places, context, backbone, augment=spec.augment)
    else:
        data = read_maps(places, context, backbone)
    scores = {
        "majority": baselines.majority(data.plain, n_classes=len(classes)),
        "linear_probe": baselines.linear_probe(data.plain, n_classes=len(classes), observer=observer),
    }
    model = SourceInTraining(
        source.network,
        batch=max(1, (source.most_images or 1) // context.batch_divisor),
        preprocessing=backbone.preprocessing if frozen is None else None,
    ).to(context.device)
    kernels, _ = _kernel(spec, context, watch, model, data, "initial")

    watch.begin("training")
    history = _train(spec, context, model, data)
    training_s = watch.seconds("training")
    trained_kernels, spectrum = _kernel(spec, context, watch, model, data, "trained")

    watch.begin("evaluating")
    metrics: dict[str, Any] = {"validation": None, "test": None}
    files = []
    for part in ("validation", "test"):
        if part in data.parts:
            judged = data.parts[part]
            logits = predict_logits(model, judged, context.device, observer=observer)
            metrics[part] = evaluate(logits, judged.labels, classes)
            if part == "test":
                names = context.dataset.names("test")
                files = [predictions_file(logits, judged.labels, images=names, classes=classes)]
    if frozen is not None and state_sha256(frozen) != before:
        raise RuntimeError("the frozen backbone changed during training")

    watch.begin("publishing")
    content = _content(backbone.cpu())
    n_trained = len(history.rows) * len(data.parts["train"])
    result = {
        "metrics": metrics,
        "baselines": scores,
        "verdict": judge(metrics, scores, on_map=frozen is not None),
        "timing": {
            "seconds": watch.total(),
            "images_per_second": n_trained / training_s if training_s else None,
            "phases": watch.phases(),
        },
        "training": {"epochs": len(history.rows), "kept_epoch": history.kept_epoch,
                     "stopped_by_budget": history.stopped_by_budget, "stopped_early": history.stopped_early},
        "parameters": {"trained": sum(parameter.numel() for parameter in model.adapter_parameters()),
                       "total": content.parameters},
        "input": {"shape": list(source.network.shape), "from": "pixels" if frozen is None else "feature_map"},
        "tangent_kernel": {**kernels, **trained_kernels} if spec.tangent_kernel is not None else None,
        "backbone_unchanged": None if frozen is None else True,
        "provenance": provenance(dataset_sha256=context.dataset.sha256),
    }  # fmt: skip
    confusion = (metrics["test"] or metrics["validation"] or {"confusion": np.zeros((len(classes),) * 2)})["confusion"]
    pictures = train_source_artifacts(
        result=result,
        history=history.rows,
        classes=classes,
        confusion=np.asarray(confusion, dtype=np.int64),
        spectrum=spectrum,
        spec=spec.model_dump(mode="json"),
    )
    return JobOutcome(result=result, backbone=content, spectrum=spectrum, artifacts=[*pictures, *files])


def initial_backbone(spec: TrainSourceSpec, context: JobContext) -> Backbone:
    """The backbone before training: the network as the job's seed draws it, around the base's own weights.

    From pixels it is what `random:trained:<job>` gives under the same seed.
    """
    classes = context.dataset.classes
    stated = spec.architecture.model_dump(mode="json")
    if spec.pixels is not None:
        hyper_parameters = {name: value for name, value in stated.items() if name != "kind"}
        arguments = {"size": spec.pixels[1], "n_classes": len(classes), **hyper_parameters}
        spec.architecture.check(spec.pixels, len(classes))
        return load_backbone(_description(spec, stated["kind"], arguments, classes))
    assert spec.backbone is not None
    base = stock_backbone(context, spec.backbone, IdentitySpec())
    tower = base.source.map_tower()
    spec.architecture.check(map_shape(tower, base.canvas_size), len(classes))
    arguments = {"base": base_arguments(base), "source": stated, "n_classes": len(classes)}
    backbone = load_backbone(_description(spec, ON_FEATURE_MAP, arguments, classes))
    assert isinstance(backbone.source, FeatureMapSource)
    backbone.source.base.load_state_dict(tower.state_dict())
    return backbone


def _description(
    spec: TrainSourceSpec, architecture: str, arguments: dict[str, Any], classes: tuple[str, ...]
) -> BackboneDescription:
    return BackboneDescription(
        id="trained", library="builtin", architecture=architecture, arguments=arguments, classes=classes,
        random_seed=spec.seed,
    )  # fmt: skip


def _require_classes(context: JobContext) -> None:
    n_classes = len(np.unique(context.dataset.labels("train")))
    if n_classes < 2:
        raise DatasetError(f"{n_classes} class has training images: a source model needs two", param="dataset")


def _kernel(
    spec: TrainSourceSpec, context: JobContext, watch: Stopwatch, model: SourceInTraining, data: SourceData, when: str
) -> tuple[Mapping[str, Any], SpectrumContent | None]:
    """The summaries of the kernels at that time; a checkpoint spares a later attempt what was taken before training."""
    if spec.tangent_kernel is None:
        return {}, None
    kept = context.observer.load_checkpoint("kernel") if when == "initial" else None
    if kept is not None:
        return kept.state, None
    n_classes = len(context.dataset.classes)
    if spec.tangent_kernel.samples < n_classes:
        raise SpecError(
            f"{spec.tangent_kernel.samples} samples cannot cover {n_classes} classes", param="tangent_kernel.samples"
        )
    watch.begin("diagnosing")
    train = data.parts["train"]
    chosen = kernel_sample(spec.tangent_kernel, train, n_classes=n_classes, seed=spec.seed)
    inputs = train.batch(chosen, context.device)
    read = network_spectrum(spec.tangent_kernel, model, inputs, train.labels[chosen], context)
    summaries: dict[str, Any] = {when: dict(read.summary)}
    if when == "initial":
        limit = spec.architecture if isinstance(spec.architecture, MlpSpec) else None
        normalised = model.normalised(inputs)
        summaries["infinite_width"] = None if limit is None else infinite_width_summary(normalised, depth=limit.depth)
        context.observer.save_checkpoint("kernel", Checkpoint(0, summaries, {}))
    return summaries, read


def _train(spec: TrainSourceSpec, context: JobContext, model: SourceInTraining, data: SourceData) -> TrainingHistory:
    run = TrainingRun(
        train=data.parts["train"],
        validation=data.parts.get("validation"),
        observer=context.observer,
        device=context.device,
        seed=spec.seed,
        max_seconds=spec.budget.max_seconds,
    )
    of_one = spec.architecture.multiply_adds(model.network.shape, model.network.n_classes)
    with threads_for(of_one * min(spec.trainer.batch_size, model.batch_limit)):
        return spec.trainer.as_gradient().build().train(model, run)


def _content(backbone: Backbone) -> BackboneContent:
    """One file with all weights; equal weights give equal bytes."""
    source = backbone.source
    tensors = {name: tensor.detach().contiguous() for name, tensor in source.state_dict().items()}
    description = backbone.description.model_copy(update={"random_seed": None, "preprocessing": backbone.preprocessing})
    with torch.no_grad():
        return BackboneContent(
            description=description,
            weights=safetensors.torch.save(tensors),
            parameters=sum(parameter.numel() for parameter in source.parameters()),
            outputs=backbone.output_shapes,
        )
