"""Trains an adapter and judges it beside all baselines."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mr_core import baselines
from mr_core.adapter import save_adapter
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import RANDOM_PREFIX, Output
from mr_core.backbones.weights import state_sha256
from mr_core.baselines import FrozenOutputs, Part, brief_metrics
from mr_core.datasets.splits import stratified_split
from mr_core.evaluation import evaluate, predict_logits
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.outcome import Artifact, JobOutcome
from mr_core.jobs.preparation import ImageSource, ready_backbone
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.jobs.reprogram.verdict import judge
from mr_core.jobs.stopwatch import Stopwatch
from mr_core.label_mappings.text.spec import TextSpec
from mr_core.plots import reprogram_artifacts
from mr_core.provenance import provenance
from mr_core.reprogrammed import ReprogrammedModel
from mr_core.trainers.trainer import LabelledImages, TrainingHistory, TrainingRun

_SHOWN_MAPPING_ROWS = 40


def reprogram(spec: ReprogramSpec, context: JobContext) -> JobOutcome:
    """Embed, train, evaluate once on the test split, compare, and describe."""
    watch = Stopwatch(context.observer)
    classes = context.dataset.classes

    watch.begin("embedding")
    backbone = ready_backbone(context, spec.backbone, spec.input_transform)
    before = state_sha256(backbone)
    model = _untrained(spec, backbone, classes).to(context.device)
    parts = _parts(spec, context, model)
    frozen = _frozen_outputs(spec, context, backbone)
    scores = _baselines(spec, context, backbone, frozen)

    watch.begin("training")
    history = _train(spec, context, model, parts)
    trained_images = len(history.rows) * len(parts["train"])
    training_s = watch.seconds("training")
    scores["random_backbone"] = _random_control(spec, context)

    watch.begin("evaluating")
    metrics: dict[str, Any] = {"validation": None, "test": None}
    for part in ("validation", "test"):
        if part in parts:
            logits = predict_logits(model, parts[part], context.device, observer=context.observer)
            metrics[part] = evaluate(logits, parts[part].labels, classes)
    if state_sha256(backbone) != before:
        raise RuntimeError("the frozen backbone changed during training")

    watch.begin("publishing")
    record = {
        "metrics": {part: values and {k: values[k] for k in ("accuracy", "loss")} for part, values in metrics.items()},
        "baselines": scores,
        "verdict": judge(metrics, scores),
        "provenance": provenance(dataset_sha256=context.dataset.sha256),
    }
    adapter = save_adapter(model, spec=spec, classes=classes, record=record)
    result = {
        "metrics": metrics,
        "baselines": scores,
        "verdict": record["verdict"],
        "timing": {
            "seconds": watch.total(),
            "images_per_second": trained_images / training_s if trained_images else None,
            "phases": watch.phases(),
        },
        "training": {"epochs": len(history.rows), "kept_epoch": history.kept_epoch,
                     "stopped_by_budget": history.stopped_by_budget},
        "trainable_parameters": sum(parameter.numel() for parameter in model.adapter_parameters()),
        "backbone_unchanged": True,
    }  # fmt: skip
    return JobOutcome(
        result=result, adapter=adapter, artifacts=_artifacts(spec, model, result, history, classes, record)
    )


def _untrained(spec: ReprogramSpec, backbone: Backbone, classes: tuple[str, ...]) -> ReprogrammedModel:
    return ReprogrammedModel(
        spec.input_transform.build(backbone.preprocessing), backbone, spec.label_mapping.build(backbone, classes)
    )


def _split(spec: ReprogramSpec, context: JobContext) -> dict[Part, tuple[Any, NDArray[np.int64] | None]]:
    """Which images of which split each part holds; parts without images are left out."""
    labels = context.dataset.labels("train")
    fraction = spec.evaluation.validation_fraction
    parts: dict[Part, tuple[Any, NDArray[np.int64] | None]] = {"train": ("train", None)}
    if fraction > 0:
        kept, held_out = stratified_split(labels, fraction, spec.seed)
        parts = {"train": ("train", kept), "validation": ("train", held_out)}
    if context.dataset.n("test"):
        parts["test"] = ("test", None)
    return parts


def _parts(spec: ReprogramSpec, context: JobContext, model: ReprogrammedModel) -> dict[Part, LabelledImages]:
    source = ImageSource(context, model.backbone)
    return {
        part: source.read(model.input_transform, split, indices)
        for part, (split, indices) in _split(spec, context).items()
    }


def _frozen_outputs(spec: ReprogramSpec, context: JobContext, backbone: Backbone) -> FrozenOutputs:
    """What the frozen backbone gives for the images alone: all that the baselines read."""
    alone = IdentitySpec().build(backbone.preprocessing)
    source = ImageSource(context, backbone)
    images = {part: source.read(alone, split, indices) for part, (split, indices) in _split(spec, context).items()}
    names: tuple[Output, ...] = backbone.available_outputs
    return baselines.frozen_outputs(backbone, alone, images, names, device=context.device, observer=context.observer)


def _baselines(
    spec: ReprogramSpec, context: JobContext, backbone: Backbone, frozen: FrozenOutputs
) -> dict[str, dict[str, Any] | None]:
    classes = context.dataset.classes
    mapping = spec.label_mapping.build(backbone, classes).cpu()
    has_weights = any(True for _ in mapping.parameters())
    has_text = "image_text" in backbone.available_outputs
    text = TextSpec().build(backbone, classes).cpu() if has_text else None
    return {
        "majority": baselines.majority(frozen, n_classes=len(classes)),
        # A mapping with weights and no prompt is the linear probe, which stands beside it.
        "mapping_only": None if has_weights else baselines.mapping_only(frozen, mapping),
        "linear_probe": baselines.linear_probe(frozen, n_classes=len(classes), observer=context.observer),
        "zero_shot": baselines.zero_shot(frozen, text) if text is not None else None,
        "random_backbone": None,
    }


def _train(
    spec: ReprogramSpec,
    context: JobContext,
    model: ReprogrammedModel,
    parts: Mapping[Part, LabelledImages],
    *,
    name: str = "training",
) -> TrainingHistory:
    return spec.trainer.build().train(
        model,
        TrainingRun(
            train=parts["train"],
            validation=parts.get("validation"),
            observer=context.observer,
            device=context.device,
            seed=spec.seed,
            name=name,
            max_seconds=spec.budget.max_seconds,
        ),
    )


def _random_control(spec: ReprogramSpec, context: JobContext) -> dict[str, Any] | None:
    """The same adapter trained on the same architecture with random weights, where the spec asks for it."""
    if not spec.evaluation.random_backbone or spec.backbone.startswith(RANDOM_PREFIX):
        return None
    context.observer.message("training the same adapter on a random backbone, as a control")
    backbone = ready_backbone(context, RANDOM_PREFIX + spec.backbone, spec.input_transform)
    model = _untrained(spec, backbone, context.dataset.classes).to(context.device)
    parts = _parts(spec, context, model)
    _train(spec, context, model, parts, name="random_backbone")
    scores: dict[str, Any] = {"validation": None, "test": None}
    for part in ("validation", "test"):
        if part in parts:
            logits = predict_logits(model, parts[part], context.device, observer=context.observer)
            scores[part] = brief_metrics(logits, parts[part].labels)
    return scores


def _artifacts(
    spec: ReprogramSpec,
    model: ReprogrammedModel,
    result: Mapping[str, Any],
    history: TrainingHistory,
    classes: tuple[str, ...],
    record: Mapping[str, Any],
) -> list[Artifact]:
    picture = model.input_transform.picture()
    rows, names = _shown_mapping(model)
    part = "test" if result["metrics"]["test"] else "validation"
    confusion = (result["metrics"][part] or {"confusion": np.zeros((len(classes),) * 2)})["confusion"]
    return reprogram_artifacts(
        result=result,
        history=history.rows,
        frame=picture.permute(1, 2, 0).cpu().numpy() if picture is not None else None,
        mapping=rows,
        mapping_rows=names,
        classes=classes,
        confusion=np.asarray(confusion, dtype=np.int64),
        spec=spec.model_dump(mode="json"),
        provenance=record["provenance"],
    )


def _shown_mapping(model: ReprogrammedModel) -> tuple[NDArray[np.floating[Any]], list[str]]:
    """The mapping's matrix and row names; of many rows, those that weigh most."""
    matrix = model.label_mapping.matrix().detach().cpu()
    strongest = torch.sort(matrix.abs().amax(1), descending=True, stable=True).indices[:_SHOWN_MAPPING_ROWS]
    rows = strongest.sort().values
    reads, known = model.label_mapping.reads, model.backbone.source_classes
    named = known if reads == "source_logits" and known is not None else None
    return matrix[rows].numpy(), [named[i] if named else f"{reads} {i}" for i in rows.tolist()]
