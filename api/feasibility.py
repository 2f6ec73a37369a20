"""What can be said without torch about whether a job can succeed: refused at the POST, not after a wait in the queue.

What only the loaded backbone or the decoded images show is checked in the attempt, which fails with the same codes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from sqlalchemy.orm import Session

from mr_core.backbones.description import MINI_CLIP, RANDOM_PREFIX
from mr_core.backbones.identifiers import describe
from mr_core.errors import SpecError
from mr_core.input_transforms.base import InputTransformSpec
from mr_core.job_spec import AroundBackbone, JobSpec
from mr_core.jobs.evaluate.spec import EvaluateSpec
from mr_core.jobs.prime.spec import PrimeSpec
from mr_core.jobs.remote_rules import PartSizes, check_training, least_cost, limit_of, refuse_call_budget, require
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.jobs.train_source.spec import TrainSourceSpec
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.views import require_equal_views
from service import adapters, backbones, results
from service.models import Dataset


@dataclass(frozen=True)
class KnownBackbone:
    """What is known of a backbone that is not loaded; "unknown" is left to the attempt."""

    id: str
    canvas: int | None = None
    labels: int | Literal["unknown"] | None = "unknown"
    text: bool | None = None
    is_remote: bool = False
    batch_size: int = 1


def check_feasible(session: Session, tenant: str, spec: JobSpec, dataset: Dataset) -> None:
    """SpecError (or BackboneError, NotFound) naming the part of the spec that cannot work."""
    adapter_id = getattr(spec, "adapter", None)
    if adapter_id is not None:
        _check_adapter(adapters.get(session, tenant, adapter_id).config, spec, dataset)
    if isinstance(spec, AroundBackbone):
        backbone = known_backbone(session, tenant, spec.backbone)
        _check_remote(spec, backbone, dataset)
        if isinstance(spec, PrimeSpec):
            backbone = _primed(session, tenant, spec, backbone)
        transform, mapping = getattr(spec, "input_transform", None), getattr(spec, "label_mapping", None)
        _check_input_transform(transform, backbone)
        _check_label_mapping(mapping, backbone, dataset.classes)
        if transform is not None and mapping is not None:
            require_equal_views(transform.views, mapping.views)
    elif not isinstance(spec, EvaluateSpec):  # whose adapter may stand on a remote backbone
        refuse_call_budget(spec)
    for backbone_id in getattr(spec, "backbones", ()):
        if backbones.is_remote(backbone_id.removeprefix(RANDOM_PREFIX)):
            _refuse_remote(spec, known_backbone(session, tenant, backbone_id), param="backbones")
    ranking_id = getattr(spec, "ranking", None)
    if ranking_id is not None:
        results.get_ranking(session, tenant, ranking_id, dataset_id=dataset.id)
    if isinstance(spec, TrainSourceSpec):
        _check_source(session, tenant, spec, n_classes=len(dataset.classes))
    _check_samples(spec, dataset)


def known_backbone(session: Session, tenant: str, backbone_id: str) -> KnownBackbone:
    """What is known of the backbone of this id; NotFound or BackboneError where there is none."""
    trained_id = backbone_id.removeprefix(RANDOM_PREFIX)
    if backbones.is_registered(trained_id):
        row = backbones.get(session, tenant, trained_id)
        preprocessing = row.description.get("preprocessing") or {}
        return KnownBackbone(
            backbone_id,
            canvas=preprocessing.get("size"),
            labels=row.outputs["labels"],
            text=row.outputs["text"],
            is_remote=backbones.is_remote(trained_id),
            batch_size=int((row.description.get("arguments") or {}).get("batch_size", 1)),
        )
    description = describe(backbone_id)
    if trained_id == MINI_CLIP:
        config = mini_clip_config()
        return KnownBackbone(
            backbone_id, canvas=config["preprocessing"]["size"], labels=len(config["classes"]), text=True
        )
    if description.library == "open_clip":
        return KnownBackbone(backbone_id, labels=None, text=True)
    return KnownBackbone(backbone_id, text=False)


@cache
def mini_clip_config() -> dict[str, Any]:
    """What ships beside mini-clip's weights."""
    file = files("mr_core.backbones.builtin.mini_clip").joinpath("config.json")
    config: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return config


def _check_remote(spec: JobSpec, backbone: KnownBackbone, dataset: Dataset) -> None:
    """What a model that only answers cannot do, and a budget that cannot do."""
    if not backbone.is_remote:
        if not isinstance(spec, PrimeSpec):
            refuse_call_budget(spec)
        return
    if backbone.id.startswith(RANDOM_PREFIX):
        raise SpecError("a remote backbone has no random variant", param="backbone")
    if isinstance(spec, PrimeSpec):
        return
    if not isinstance(spec, ReprogramSpec):
        _refuse_remote(spec, backbone, param="backbone")
        return
    check_training(spec, spec.budget, canvas_size=backbone.canvas)
    # How a split divides by class, and which answers are known already, shows in the attempt.
    n_train, n_test = (int(dataset.splits.get(split, 0)) for split in ("train", "test"))
    n_fitted = int(n_train * (1 - spec.evaluation.validation_fraction)) - len(dataset.classes)
    sizes = PartSizes(train=max(1, n_fitted), validation=0, test=n_test)
    cost = least_cost(spec, sizes, backbone.batch_size)
    require(limit_of(spec.budget), cost, what="one step of training and the evaluation")


def _primed(session: Session, tenant: str, spec: PrimeSpec, api: KnownBackbone) -> KnownBackbone:
    """The encoder with the API's classes, which is what is reprogrammed."""
    if not api.is_remote:
        raise SpecError(f"{spec.backbone} is not remote: reprogram it, without a detour", param="backbone")
    encoder = known_backbone(session, tenant, spec.encoder)
    _refuse_remote(spec, encoder, param="encoder")
    return KnownBackbone(f"{spec.encoder}, primed", canvas=encoder.canvas, labels=api.labels, text=False)


def _refuse_remote(spec: JobSpec, backbone: KnownBackbone, *, param: str) -> None:
    if backbone.is_remote:
        raise SpecError(f"{backbone.id} only answers, and a {spec.kind} job needs more of it", param=param)


def _check_input_transform(transform: InputTransformSpec | None, backbone: KnownBackbone) -> None:
    if transform is not None and backbone.canvas is not None:
        transform.check(backbone.canvas)


def _check_label_mapping(mapping: LabelMappingSpec | None, backbone: KnownBackbone, classes: Sequence[str]) -> None:
    if mapping is None:
        return
    mapping.check(classes)
    n_targets = len(classes)
    if mapping.reads == "source_logits" and backbone.labels is None:
        raise SpecError(
            f"the mapping {mapping.kind} reads source labels, and {backbone.id} has none; use linear on the embedding",
            param="label_mapping.kind",
        )
    needed = mapping.sources_needed(n_targets)
    if isinstance(backbone.labels, int) and needed > backbone.labels:
        raise SpecError(
            f"the mapping {mapping.kind} gives {n_targets} target classes {needed} source classes of their own, "
            f"and {backbone.id} has {backbone.labels}; use a linear mapping",
            param="label_mapping.kind" if needed == n_targets else "label_mapping.sources_per_class",
        )
    if mapping.reads == "image_text" and backbone.text is False:
        raise SpecError(
            f"the mapping {mapping.kind} needs a text tower, and {backbone.id} has none", param="label_mapping.kind"
        )


def _check_source(session: Session, tenant: str, spec: TrainSourceSpec, *, n_classes: int) -> None:
    if spec.backbone is not None:
        _refuse_remote(spec, known_backbone(session, tenant, spec.backbone), param="backbone")
    if spec.pixels is not None:
        spec.architecture.check(spec.pixels, n_classes)
    if spec.tangent_kernel is not None and spec.tangent_kernel.samples < n_classes:
        raise SpecError(
            f"{spec.tangent_kernel.samples} samples cannot cover {n_classes} classes", param="tangent_kernel.samples"
        )


def _check_samples(spec: JobSpec, dataset: Dataset) -> None:
    n_classes, n_train = len(dataset.classes), int(dataset.splits.get("train", 0))
    split = getattr(spec, "split", None)
    if split is not None and not dataset.splits.get(split):
        raise SpecError(f"the dataset has no {split} images", param="split")
    samples = getattr(spec, "samples", None)
    if samples is not None and samples < n_classes:
        raise SpecError(f"{samples} samples cannot cover {n_classes} classes", param="samples")
    fraction = getattr(getattr(spec, "evaluation", None), "validation_fraction", 0)
    if fraction > 0 and n_train == n_classes:
        raise SpecError(
            f"{n_train} training images of {n_classes} classes leave none for validation: "
            "set evaluation.validation_fraction to 0 and trainer.selection to 'last'",
            param="evaluation.validation_fraction",
        )


def _check_adapter(config: dict[str, Any], spec: JobSpec, dataset: Dataset) -> None:
    if not isinstance(spec, AroundBackbone):
        unknown = [name for name in dataset.classes if name not in config["classes"]]
        if unknown:
            raise SpecError(f"the adapter does not know the classes {', '.join(unknown[:5])}", param="adapter")
        return
    trained_on = config.get("backbone")
    trained_id = trained_on.get("id") if isinstance(trained_on, dict) else trained_on
    if trained_id is not None and trained_id != spec.backbone:
        raise SpecError(f"the adapter was trained around {trained_id}, not around {spec.backbone}", param="adapter")
    if list(config.get("classes", dataset.classes)) != list(dataset.classes):
        raise SpecError(f"the adapter's classes are not those of {dataset.id}", param="adapter")
