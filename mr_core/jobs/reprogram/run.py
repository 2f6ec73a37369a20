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
from mr_core.backbones.description import Output
from mr_core.backbones.remote.source import oracle_of
from mr_core.backbones.weights import state_sha256
from mr_core.baselines import FrozenOutputs
from mr_core.errors import CallBudgetSpent, RemoteError
from mr_core.evaluation import evaluate, predict_logits
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.features import outputs_of_parts
from mr_core.jobs.outcome import Artifact, JobOutcome
from mr_core.jobs.places import Places
from mr_core.jobs.preparation import ready_backbone
from mr_core.jobs.remote_account import account_for_training
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
_OF_ANSWERS = {"linear_probe": "a linear probe on the frozen answers"}


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
    backbone = ready_backbone(context, spec.backbone, spec.input_transform, answers_suffice=True)
    before = state_sha256(backbone)
    places = places_of(spec, context)
    account = account_for_training(spec, context, backbone, places)
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
    with account.training():
        trained = train_repeats(spec, context, backbone, parts)
    trained_images = sum(len(one.history.rows) for one in trained) * len(parts["train"])
    training_s = watch.seconds("training")
    scores["random_backbone"] = random_control(spec, context, places)
    chosen = best_of(trained)
    model, history = chosen.model, chosen.history

    watch.begin("evaluating")
    metrics: dict[str, Any] = {"validation": None, "test": None}
    files: list[Artifact] = []
    unjudged: str | None = None
    for part in ("validation", "test"):
        if part not in parts:
            continue
        try:
            logits = predict_logits(chosen.trainable, parts[part], context.device, observer=context.observer)
        except (CallBudgetSpent, RemoteError) as error:  # the adapter is paid for: better unjudged than lost
            if part != "test":
                raise
            unjudged = error.detail
            context.observer.message(f"the test images are not judged: {unjudged}", level="warning")
            continue
        metrics[part] = evaluate(logits, parts[part].labels, classes)
        if part == "test":
            names = context.dataset.names("test")
            files = [predictions_file(logits, parts[part].labels, images=names, classes=classes)]
    if selection is not None and retrains:
        metrics["validation"] = dict(selection.validation)
    if state_sha256(backbone) != before:
        raise RuntimeError("the frozen backbone changed during training")

    watch.begin("publishing")
    verdict = judge(metrics, scores, names={} if account.oracle is None else _OF_ANSWERS)
    if unjudged is not None:
        verdict["reason"] += f" The test images could not be judged: {unjudged}."
    if history.calls_spent:
        done = f"{len(history.rows)} of {getattr(spec.trainer, 'epochs', 1)} epochs"
        verdict["reason"] += f" The call budget was spent after {done}: this is the best adapter until then."
    record = {
        "metrics": {part: values and {k: values[k] for k in ("accuracy", "loss")} for part, values in metrics.items()},
        "baselines": scores,
        "verdict": _of_selection(verdict, selection, retrains=retrains),
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
        "backbone_unchanged": True if account.oracle is None else None,  # what is elsewhere cannot be seen
        **account.statement(is_spent=history.calls_spent),
    }  # fmt: skip
    texts = model.label_mapping.chosen_texts()
    if texts is not None:
        result["texts"] = dict(zip(classes, texts, strict=True))
    if selection is not None:
        result["training"]["with_validation_images"] = retrains
    trials = selection.trials if selection is not None else ()
    pictures = reprogram_files(spec, model, result, history.rows, classes, record, trials)
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


def _of_selection(verdict: Mapping[str, str], selection: Selection | None, *, retrains: bool) -> Mapping[str, str]:
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
    return {
        "majority": baselines.majority(frozen, n_classes=len(classes)),
        # A mapping with weights and no prompt is the linear probe, which stands beside it.
        "mapping_only": None if has_weights else baselines.mapping_only(frozen, mapping),
        "linear_probe": baselines.linear_probe(
            frozen, n_classes=len(classes), observer=context.observer, reads=_probed_output(backbone)
        ),
        "zero_shot": _zero_shot(context, backbone, frozen),
        "random_backbone": None,
    }


def _zero_shot(context: JobContext, backbone: Backbone, frozen: FrozenOutputs) -> dict[str, Any] | None:
    """By the text tower; of a remote backbone by the names of its classes, where they are those of the dataset."""
    classes = context.dataset.classes
    if "image_text" in backbone.available_outputs:
        return baselines.zero_shot(frozen, TextSpec().build(backbone, classes).cpu())
    named = baselines.named_sources(backbone.source_classes, classes) if oracle_of(backbone) is not None else None
    return baselines.named_classes(frozen, named) if named is not None else None


def _probed_output(backbone: Backbone) -> Output:
    """What the linear probe reads: of a backbone that only answers the answers."""
    return "embedding" if "embedding" in backbone.available_outputs else "source_logits"


def reprogram_files(
    spec: ReprogramSpec,
    model: ReprogrammedModel,
    result: Mapping[str, Any],
    history: list[dict[str, float]],
    classes: tuple[str, ...],
    record: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]] = (),
) -> list[Artifact]:
    """Pictures and report of a training."""
    picture = model.input_transform.picture()
    rows, names = _shown_mapping(model)
    part = "test" if result["metrics"]["test"] else "validation"
    confusion = (result["metrics"][part] or {}).get("confusion", np.zeros((len(classes),) * 2))
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
