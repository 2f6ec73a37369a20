"""Training without gradients of the backbone, by perturbing all parameters at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.trainers.base import TrainerSpec
from mr_core.trainers.fields import TrainsInEpochs

if TYPE_CHECKING:
    from mr_core.trainers.spsa.trainer import SpsaTrainer


class SpsaSpec(TrainsInEpochs, TrainerSpec):
    """Simultaneous perturbation: two answers tell a change of all parameters at once; the backbone only answers.

    Spall, 1992; with gradient correction (`correction`), the look-ahead momentum of Oh et al., BlackVIP, 2023,
    arXiv:2303.14773 (SPSA-GC), whose defaults these are. A step passes 2 `draws` times the batch. In step k, from 0,
    the rate is `rate / (k + 1 + offset)^rate_decay` and the perturbation `width / (k + 1)^width_decay`. The authors
    warn that results vary much between seeds: use `repeats`.
    """

    kind: Literal["spsa"] = "spsa"
    draws: int = Field(5, ge=1, le=10_000, description="Perturbations a step, whose estimates are averaged.")
    rate: float = Field(0.01, gt=0, description="a of the rate's course.")
    rate_decay: float = Field(0.4, ge=0, le=1, description="alpha: its exponent.")
    offset: float = Field(1.0, ge=0, description="o: steps by which the rate's course is begun later.")
    width: float = Field(0.01, gt=0, description="c of the perturbation's course, in units of the parameters.")
    width_decay: float = Field(0.1, ge=0, le=1, description="gamma: its exponent.")
    correction: float = Field(0.9, ge=0, lt=1, description="beta of the gradient correction; 0 is plain SPSA.")

    @property
    def forward_passes(self) -> int:
        return 2 * self.draws

    def build(self) -> SpsaTrainer:
        from mr_core.trainers.spsa.trainer import SpsaTrainer

        return SpsaTrainer(self)
