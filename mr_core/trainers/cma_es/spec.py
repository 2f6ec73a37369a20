"""Training without gradients of the backbone, by an evolution strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.trainers.base import TrainerSpec
from mr_core.trainers.fields import TrainsInEpochs

if TYPE_CHECKING:
    from mr_core.trainers.cma_es.trainer import CmaEsTrainer


class CmaEsSpec(TrainsInEpochs, TrainerSpec):
    """Candidates drawn from a normal distribution whose mean and shape follow those of low loss; answers are enough.

    Hansen, The CMA Evolution Strategy: A Tutorial, 2016, arXiv:1604.00772, by its author's package. A step is a
    generation: it passes `population` times the batch, on which all candidates are compared; the adapter is the mean.
    Made for few parameters: a prompt of low rank or of few frequencies.
    """

    kind: Literal["cma_es"] = "cma_es"
    population: int = Field(20, ge=4, le=10_000, description="Candidates a step (lambda).")
    deviation: float = Field(0.1, gt=0, description="Of the first candidates, in units of the parameters (sigma).")
    covariance: Literal["diagonal", "full"] = Field(
        "diagonal",
        description="Of the distribution: a deviation for each parameter (Ros and Hansen, 2008), or all correlations, "
        "for at most 2,000 parameters.",
    )

    @property
    def forward_passes(self) -> int:
        return self.population

    def build(self) -> CmaEsTrainer:
        from mr_core.trainers.cma_es.trainer import CmaEsTrainer

        return CmaEsTrainer(self)
