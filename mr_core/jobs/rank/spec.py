"""Order backbones, input transforms and label mappings for a task, before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from mr_core.backbones.description import MINI_CLIP
from mr_core.input_transforms import AnyInputTransformSpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.jobs.base import Identifier, JobSpec
from mr_core.label_mappings import AnyLabelMappingSpec
from mr_core.label_mappings.iterative.spec import IterativeSpec
from mr_core.trainers import AnyTrainerSpec
from mr_core.trainers.gradient.spec import GradientSpec

if TYPE_CHECKING:
    from mr_core.jobs.context import JobContext
    from mr_core.jobs.outcome import JobOutcome

MOST_CELLS = 200


class RankSpec(JobSpec):
    """A grid of backbones x input transforms x label mappings: cheap scores for all, a diagnosis for the best of them.

    The cells are ordered by predicted accuracy, each with its interval and its probability of being the best; those
    that were trained come before them, by their accuracy on validation images. A cell that cannot be is reported with
    its error; the rest runs. Diagnoses and trainings are sub-jobs, spread over the workers.
    """

    kind: Literal["rank"] = "rank"
    backbones: list[Identifier] = Field([MINI_CLIP], min_length=1, max_length=50, description="Ids, as in `diagnose`.")
    input_transforms: list[AnyInputTransformSpec] = Field([PaddingSpec()], min_length=1, max_length=20)
    label_mappings: list[AnyLabelMappingSpec] = Field([IterativeSpec()], min_length=1, max_length=20)
    samples: int = Field(200, ge=4, le=5000, description="Training images that scores and kernels are taken on.")
    survivors: int = Field(8, ge=1, le=50, description="Cells, the best by their cheap scores, that get a kernel.")
    kernel: Literal["full", "trace", "pseudo"] = Field("full", description="As in `diagnose`.")
    short_training: bool = Field(True, description="As in `diagnose`: without it the order is the kernels' alone.")
    finalists: int = Field(
        0, ge=0, le=20, description="Cells, the best by prediction, that are then trained, and lead the order by that."
    )
    trainer: AnyTrainerSpec = Field(
        GradientSpec(epochs=4), description="Of the finalists; keep it short. A fifth of the images judges them."
    )

    @model_validator(mode="after")
    def _grid_is_small(self) -> Self:
        n = len(self.backbones) * len(self.input_transforms) * len(self.label_mappings)
        if n > MOST_CELLS:
            raise ValueError(
                f"{len(self.backbones)} backbones x {len(self.input_transforms)} input transforms x "
                f"{len(self.label_mappings)} label mappings are {n} cells, expected at most {MOST_CELLS}"
            )
        return self

    def run(self, context: JobContext) -> JobOutcome:
        from mr_core.jobs.rank.run import rank

        return rank(self, context)
