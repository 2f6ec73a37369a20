"""Trains an adapter and judges it beside all baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mr_core import baselines
from mr_core.adapter import save_adapter
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.weights import state_sha256
from mr_core.baselines import FrozenOutputs
from mr_core.evaluation import evaluate, predict_logits
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.features import outputs_of_parts
from mr_core.jobs.outcome import Artifact, JobOutcome
from mr_core.jobs.places import Places
from mr_core.jobs.preparation import ready_backbone
from mr_core.jobs.reprogram.parts import feature_parts, places_of, read_parts, training_positions
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.jobs.reprogram.training import best_of, random_control, seed_statistics, train_repeats
from mr_core.jobs.reprogram.verdict import judge
from mr_core.jobs.scale import settle_image_size
from mr_core.jobs.stopwatch import Stopwatch
from mr_core.label_mappings.text.spec import TextSpec
from mr_core.plots import reprogram_artifacts
from mr_core.predictions import predictions_file
from mr_core.provenance import provenance
from mr_core.reprogrammed import ReprogrammedModel

_SHOWN_MAPPING_ROWS = 40


@dataclass(frozen=True)
class Selection:
    """What a search says of the spec that it has chosen, and asks of its training.

    `retrain`: on training and validation images together, where the label mapping chooses nothing on the latter. What
    is told of validation images is then still of the adapter that was trained without them.
    """

    reason: str  # begins the verdict
    trials: Sequence[Mapping[str, Any]]  # to be drawn
    validation: Mapping[str, Any]  # what the chosen spec reached there
    retrain: bool = False


def reprogram(spec: ReprogramSpec, context: JobContext, *, selection: Selection | None = None) -> JobOutcome:
    """Embed, train, evaluate once on the test split, compare, and describe."""
    watch = Stopwatch(context.observer)
    classes = context.dataset.classes

    watch.begin("embedding")
    backbone = ready_backbone(context, spec.backbone, spec.input_transform)
    before = state_sha256(backbone)
    places = places_of(spec, context)
    train, validation = training_positions(places, context)
    settled, scales = settle_image_size(
        spec.input_transform, spec.label_mapping, context, backbone, train=train, validation=validation
    )
    spec = spec.model_copy(update={"input_transform": settled})
    frozen = outputs_of_parts(places, context, backbone)
    scores = _baselines(spec, context, backbone, frozen)
    retrains = selection is not None and selection.retrain and not _chooses_on_validation(spec, context, backbone)
    divided = places
    if retrains:
        spec, divided = _without_validation(spec), _whole(places)
    if isinstance(settled, IdentitySpec):  # the images alone: their outputs are all that training needs
        outputs = frozen if divided is places else outputs_of_parts(divided, context, backbone)
        parts = feature_parts(outputs, spec.label_mapping.reads)
    else:
        parts = read_parts(divided, context, backbone, settled.build(backbone.preprocessing))

    watch.begin("training")
    trained = train_repeats(spec, context, backbone, parts)
    trained_images = sum(len(one.history.rows) for one in trained) * len(parts["train"])
    training_s = watch.seconds("training")
    scores["random_backbone"] = random_control(spec, context, places)
    chosen = best_of(trained)
    model, history = chosen.model, chosen.history

    watch.begin("evaluating")
    metrics: dict[str, Any] = {"validation": None, "test": None}
    files: list[Artifact] = []
    for part in ("validation", "test"):
        if part in parts:
            logits = predict_logits(chosen.trainable, parts[part], context.device, observer=context.observer)
            metrics[part] = evaluate(logits, parts[part].labels, classes)
            if part == "test":
                names = context.dataset.names("test")
                files = [predictions_file(logits, parts[part].labels, images=names, classes=classes)]
    if selection is not None and retrains:
        metrics["validation"] = dict(selection.validation)
    if state_sha256(backbone) != before:
        raise RuntimeError("the frozen backbone changed during training")

    watch.begin("publishing")
    record = {
        "metrics": {part: values and {k: values[k] for k in ("accuracy", "loss")} for part, values in metrics.items()},
        "baselines": scores,
        "verdict": _verdict(metrics, scores, selection, retrains=retrains),
        "provenance": provenance(dataset_sha256=context.dataset.sha256),
    }
    adapter = save_adapter(model, spec=spec, classes=classes, record=record)
    result: dict[str, Any] = {
        "metrics": metrics,
        "baselines": scores,
        "verdict": record["verdict"],
        "timing": {
            "seconds": watch.total(),
            "images_per_second": trained_images / training_s if trained_images else None,
            "phases": watch.phases(),
        },
        "training": {"epochs": len(history.rows), "kept_epoch": history.kept_epoch,
                     "stopped_by_budget": history.stopped_by_budget, "stopped_early": history.stopped_early},
        "seeds": seed_statistics(trained, chosen),
        "image_size": {"chosen": model.input_transform.image_size,
                       "tried": None if scales is None else [asdict(scale) for scale in scales]},
        "trainable_parameters": sum(parameter.numel() for parameter in model.adapter_parameters()),
        "backbone_unchanged": True,
    }  # fmt: skip
    if selection is not None:
        result["training"]["with_validation_images"] = retrains
    trials = selection.trials if selection is not None else ()
    pictures = _artifacts(spec, model, result, history.rows, classes, record, trials)
    return JobOutcome(result=result, adapter=adapter, artifacts=[*pictures, *files])


def _chooses_on_validation(spec: ReprogramSpec, context: JobContext, backbone: Backbone) -> bool:
    return spec.label_mapping.build(backbone, context.dataset.classes).fits_on_validation


def _without_validation(spec: ReprogramSpec) -> ReprogramSpec:
    """The spec that trains on all training images, and so has no epoch to select."""
    evaluation = spec.evaluation.model_copy(update={"validation_fraction": 0.0})
    trainer = spec.trainer.model_copy(update={"selection": "last", "patience": None})
    return spec.model_copy(update={"evaluation": evaluation, "trainer": trainer})


def _whole(places: Places) -> Places:
    others = {part: place for part, place in places.items() if part not in ("train", "validation")}
    return {"train": ("train", None), **others}


def _verdict(
    metrics: Mapping[str, Any], scores: Mapping[str, Any], selection: Selection | None, *, retrains: bool
) -> dict[str, str]:
    verdict = judge(metrics, scores)
    if selection is None:
        return verdict
    reason = f"{selection.reason} {verdict['reason']}"
    if retrains:
        reason += " The adapter was then trained again, on training and validation images together."
    return {"use": verdict["use"], "reason": reason}


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


def _artifacts(
    spec: ReprogramSpec,
    model: ReprogrammedModel,
    result: Mapping[str, Any],
    history: list[dict[str, float]],
    classes: tuple[str, ...],
    record: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
) -> list[Artifact]:
    picture = model.input_transform.picture()
    rows, names = _shown_mapping(model)
    part = "test" if result["metrics"]["test"] else "validation"
    confusion = (result["metrics"][part] or {"confusion": np.zeros((len(classes),) * 2)})["confusion"]
    return reprogram_artifacts(
        result=result,
        history=history,
        frame=picture.permute(1, 2, 0).cpu().numpy() if picture is not None else None,
        mapping=rows,
        mapping_rows=names,
        classes=classes,
        confusion=np.asarray(confusion, dtype=np.int64),
        spec=spec.model_dump(mode="json"),
        provenance=record["provenance"],
        trials=trials,
    )


def _shown_mapping(model: ReprogrammedModel) -> tuple[NDArray[np.floating[Any]], list[str]]:
    """The mapping's matrix and row names; of many rows, those that weigh most."""
    matrix = model.label_mapping.matrix().detach().cpu()
    strongest = torch.sort(matrix.abs().amax(1), descending=True, stable=True).indices[:_SHOWN_MAPPING_ROWS]
    rows = strongest.sort().values
    reads, known = model.label_mapping.reads, model.backbone.source_classes
    named = known if reads == "source_logits" and known is not None else None
    return matrix[rows].numpy(), [named[i] if named else f"{reads} {i}" for i in rows.tolist()]
