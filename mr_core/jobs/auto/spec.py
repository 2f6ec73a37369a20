"""Search input transform, label mapping, trainer and their settings, and train the best."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mr_core.input_transforms import AnyInputTransformSpec
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.input_transforms.watermark.spec import WatermarkSpec
from mr_core.jobs.base import AroundBackbone, Budget, Identifier, JobSpec
from mr_core.jobs.rank.spec import MOST_CELLS
from mr_core.jobs.reprogram.spec import Evaluation, require_passes_to_estimate_from
from mr_core.label_mappings import AnyLabelMappingSpec
from mr_core.trainers import AnyTrainerSpec
from mr_core.trainers.gradient.spec import GradientSpec

if TYPE_CHECKING:
    from mr_core.jobs.context import JobContext
    from mr_core.jobs.outcome import JobOutcome

DEFAULT_TRANSFORMS = (IdentitySpec(), PaddingSpec(), WatermarkSpec())
DEFAULT_TRAINERS = (GradientSpec(),)


class SearchBudget(Budget):
    """What a search may spend."""

    max_seconds: float | None = Field(
        None,
        gt=0,
        description="Of all trials together, as they took them, whether side by side or not; waiting does not count. "
        "The first round always runs. No round begins once it is spent, no training takes longer than what was left "
        "when its round began, and the best so far is the winner. Its own training comes on top, as long at most; "
        "with `seeds`, each training of the two best and of the winner from each seed.",
    )
    max_trials: int = Field(
        24, ge=1, le=500, description="Trials; one that goes on for more epochs stays the same trial."
    )


class AutoSpec(AroundBackbone, JobSpec):
    """Search transforms x mappings x trainers and their settings under a budget; the best becomes the adapter.

    Trials are sub-jobs, proposed by Optuna (TPE; Akiba et al., 2019, arXiv:1907.10902) after the cells that look best
    without training, and stopped early by asynchronous successive halving (Li et al., 2020, arXiv:1810.05934). The
    linear probe and zero-shot are always among the first, and what replaces the probe must lead it beyond noise.
    All choices are on validation images; the test split is touched once, by the winner.
    """

    leaves_adapter: ClassVar[bool] = True
    kind: Literal["auto"] = "auto"
    input_transforms: list[AnyInputTransformSpec] = Field(
        [], max_length=20, description="To search; if empty identity, padding and watermark."
    )
    label_mappings: list[AnyLabelMappingSpec] = Field(
        [],
        max_length=20,
        description="To search; if empty a linear one that starts at the probe, iterative and bayesian_plus where the "
        "backbone has source labels, text where it has a text tower.",
    )
    trainers: list[AnyTrainerSpec] = Field(
        [], max_length=10, description="To search; if empty gradient. Their epochs are the search's own."
    )
    search: list[Literal["learning_rate", "image_size"]] = Field(
        ["learning_rate", "image_size"],
        max_length=2,
        description="Settings searched beside the methods: a trainer's step size from a tenth to ten times what it "
        "says, the side of the image in the canvas from 1/4 to 7/8 of it where a transform leaves it open.",
    )
    budget: SearchBudget = SearchBudget()
    min_epochs: int = Field(2, ge=1, le=10_000, description="Of the first judgement of a trial, at least.")
    max_epochs: int = Field(18, ge=1, le=10_000, description="Of a trial that survives every halving.")
    reduction: int = Field(
        3, ge=2, le=10, description="Of so many trials one goes on, trained anew for so many times the epochs."
    )
    parallel: int = Field(
        4, ge=1, le=50, description="Trials of a round; the next ones are proposed when all of it have ended."
    )
    samples: int = Field(200, ge=4, le=5000, description="Training images on which cells are screened untrained.")
    diagnosed: int = Field(
        0,
        ge=0,
        le=50,
        description="Cells, the best by screening, that are diagnosed first; the search then starts with them, in the "
        "order of their predicted accuracy.",
    )
    ranking: Identifier | None = Field(
        None,
        description="Id of a `rank` of this dataset that has succeeded: the search begins with those of its cells that "
        "have this backbone and methods of the search, in the order of what it predicts, or has found, of them.",
    )
    seeds: int = Field(
        1,
        ge=1,
        le=20,
        description="Trainings from seed, seed + 1, ... of the two best trials: the better mean wins, the result has "
        "mean and deviation, and the adapter is the best of the winner's on validation images.",
    )
    confidence: float = Field(
        0.9,
        ge=0.5,
        lt=1,
        description="Share of resampled validation sets on which the winner has to beat the linear probe; below it the "
        "adapter is the probe. 0.5 takes whatever is ahead.",
    )
    retrain: bool = Field(
        False,
        description="Train the winner on training and validation images together, without selection of an epoch. A "
        "mapping that chooses on validation images, such as one that starts at the probe, is left as it was.",
    )
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _rungs_are_in_order(self) -> Self:
        if self.min_epochs > self.max_epochs:
            raise ValueError(f"min_epochs {self.min_epochs} is more than max_epochs {self.max_epochs}")
        return self

    @model_validator(mode="after")
    def _selection_needs_validation_images(self) -> Self:
        if self.evaluation.validation_fraction == 0:
            raise ValueError("evaluation.validation_fraction is 0, and a search chooses on validation images")
        return self

    @model_validator(mode="after")
    def _begins_in_one_way(self) -> Self:
        if self.ranking is not None and self.diagnosed:
            raise ValueError("ranking and diagnosed both say where the search begins: give one of them")
        return self

    @model_validator(mode="after")
    def _grid_is_small(self) -> Self:
        n = len(self.input_transforms or DEFAULT_TRANSFORMS) * len(self.label_mappings)
        if n > MOST_CELLS:
            raise ValueError(f"input_transforms x label_mappings are {n} cells, expected at most {MOST_CELLS}")
        return self

    @model_validator(mode="after")
    def _estimates_from_passes_of_training(self) -> Self:
        for mapping, trainer in product(self.label_mappings, self.trainers):
            require_passes_to_estimate_from(mapping, trainer)
        return self

    def run(self, context: JobContext) -> JobOutcome:
        from mr_core.jobs.auto.run import auto

        return auto(self, context)
