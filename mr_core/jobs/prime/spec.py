"""Ask a black box once, then reprogram a local model in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mr_core.backbones.description import MINI_CLIP
from mr_core.input_transforms import AnyInputTransformSpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.jobs.base import AroundBackbone, Budget, Identifier, JobSpec
from mr_core.jobs.reprogram.spec import Evaluation, ReprogramSpec, require_passes_to_estimate_from
from mr_core.label_mappings import AnyLabelMappingSpec
from mr_core.label_mappings.bayesian.spec import BayesianSpec
from mr_core.registry import MethodSpec
from mr_core.trainers import AnyTrainerSpec
from mr_core.trainers.gradient.spec import GradientSpec

if TYPE_CHECKING:
    from mr_core.jobs.context import JobContext
    from mr_core.jobs.outcome import JobOutcome


class Priming(MethodSpec):
    """How the local source head learns to answer as the API does; the defaults are the published ones."""

    epochs: int = Field(100, ge=1, le=10_000, description="Passes over the answers for the training images.")
    learning_rate: float = Field(1e-3, gt=0, description="Of Adam, lowered to 0 along a cosine.")
    batch_size: int = Field(64, ge=1, le=65_536, description="Answers a step.")


class JudgedOnValidation(MethodSpec):
    """How primed model and API are compared."""

    validation_fraction: float = Field(
        0.2, gt=0, le=0.5, description="Share of the training images, stratified by class, kept for the comparison."
    )


class PrimeSpec(AroundBackbone, JobSpec):
    """One pass of the training images over a black box; a local encoder primed on its answers is reprogrammed instead.

    AReS, 2026, arXiv:2604.01474: a linear layer on the frozen local embedding is trained by cross entropy against the
    API's probabilities, and the local model so primed is reprogrammed with gradients, at no further calls. Where it is
    worse on validation images than the API's own zero-shot (its classes of the same names, else a frequent mapping of
    its answers), the adapter returned is that zero-shot, around the API.
    """

    leaves_adapter: ClassVar[bool] = True
    kind: Literal["prime"] = "prime"
    backbone: Identifier = Field(description="The black box: remote:<name>.")
    encoder: Identifier = Field(MINI_CLIP, description="The local backbone that is primed; ids as for other jobs.")
    priming: Priming = Priming()
    input_transform: AnyInputTransformSpec = PaddingSpec()
    label_mapping: AnyLabelMappingSpec = BayesianSpec()
    trainer: AnyTrainerSpec = GradientSpec()
    evaluation: JudgedOnValidation = JudgedOnValidation()
    tolerance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Validation accuracy by which the primed model may fall short of the API's own zero-shot and still "
        "be returned (tau): it answers without a call.",
    )

    @model_validator(mode="after")
    def _estimates_from_passes_of_training(self) -> Self:
        require_passes_to_estimate_from(self.label_mapping, self.trainer)
        return self

    def local(self) -> ReprogramSpec:
        """The reprogramming of the primed encoder."""
        return ReprogramSpec(
            dataset=self.dataset,
            backbone=self.encoder,
            input_transform=self.input_transform,
            label_mapping=self.label_mapping,
            trainer=self.trainer,
            evaluation=Evaluation(validation_fraction=self.evaluation.validation_fraction),
            device=self.device,
            seed=self.seed,
            budget=Budget(max_seconds=self.budget.max_seconds),
            metadata=self.metadata,
        )

    def run(self, context: JobContext) -> JobOutcome:
        from mr_core.jobs.prime.run import prime

        return prime(self, context)
