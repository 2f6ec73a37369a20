"""Train an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mr_core.input_transforms import AnyInputTransformSpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.jobs.base import AroundBackbone, JobSpec
from mr_core.label_mappings import AnyLabelMappingSpec
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.iterative.spec import IterativeSpec
from mr_core.registry import MethodSpec
from mr_core.trainers import AnyTrainerSpec
from mr_core.trainers.base import TrainerSpec
from mr_core.trainers.gradient.spec import GradientSpec

if TYPE_CHECKING:
    from mr_core.jobs.context import JobContext
    from mr_core.jobs.outcome import JobOutcome


class Evaluation(MethodSpec):
    """How the adapter is judged. Selection is on validation data; the test split is touched once."""

    validation_fraction: float = Field(
        0.2, ge=0, le=0.5, description="Share of the training images, stratified by class, kept for selection."
    )
    random_backbone: bool = Field(
        False, description="Also train the same adapter on a random backbone, as a control; doubles the time."
    )


def require_passes_to_estimate_from(mapping: LabelMappingSpec, trainer: TrainerSpec) -> None:
    """ValueError where a mapping is estimated from passes at the adapter's own parameters and training has none."""
    if getattr(mapping, "refit", None) == "from_training" and trainer.forward_passes is not None:
        raise ValueError(
            f"refit of {mapping.kind} is 'from_training', but {trainer.kind} sees the images at displaced parameters "
            "alone: use 'each_epoch'"
        )


class TrainsAdapter(AroundBackbone):
    """What determines an adapter's training."""

    input_transform: AnyInputTransformSpec = PaddingSpec()
    label_mapping: AnyLabelMappingSpec = IterativeSpec()
    trainer: AnyTrainerSpec = GradientSpec()
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Of the backbone's arithmetic in training; everything is judged in float32. bfloat16 is refused "
        "where the gradient, measured against float32 first, does not hold: vision transformers bear it, most "
        "convnets do not. It gains speed only on processors that have it.",
    )
    evaluation: Evaluation = Evaluation()
    repeats: int = Field(
        1,
        ge=1,
        le=20,
        description="Trainings from the seeds seed, seed + 1, ...: the result has mean and deviation over them, the "
        "adapter is the one best on validation images. The split into training and validation stays that of `seed`.",
    )

    @model_validator(mode="after")
    def _selection_needs_validation_images(self) -> Self:
        selects = getattr(self.trainer, "selection", "last") != "last"
        if selects and self.evaluation.validation_fraction == 0:
            raise ValueError(
                "evaluation.validation_fraction is 0, so there is nothing to select on: set trainer.selection to 'last'"
            )
        return self

    @model_validator(mode="after")
    def _estimates_from_passes_of_training(self) -> Self:
        require_passes_to_estimate_from(self.label_mapping, self.trainer)
        return self


class ReprogramSpec(TrainsAdapter, JobSpec):
    """Train an adapter: an input transform and a label mapping around the frozen backbone."""

    leaves_adapter: ClassVar[bool] = True
    kind: Literal["reprogram"] = "reprogram"

    def run(self, context: JobContext) -> JobOutcome:
        from mr_core.jobs.reprogram.run import reprogram

        return reprogram(self, context)
