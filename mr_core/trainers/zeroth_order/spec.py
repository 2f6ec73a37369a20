"""Training without gradients of the backbone, by differences along random directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.trainers.base import TrainerSpec
from mr_core.trainers.fields import StepsByOptimizer

if TYPE_CHECKING:
    from mr_core.trainers.zeroth_order.trainer import ZerothOrderTrainer


class ZerothOrderSpec(StepsByOptimizer, TrainerSpec):
    """The gradient estimated from how the loss differs along random directions; the backbone only answers.

    The averaged one-sided estimator of Tsai et al., BAR, 2020, arXiv:2007.08714, with the factor d that makes its mean
    the gradient of the smoothed loss; the released script computes it and steps along the true gradient instead. A step
    passes `directions` + 1 times the batch. The paper's q is 25 and 55 for its two medical sets.
    """

    kind: Literal["zeroth_order"] = "zeroth_order"
    directions: int = Field(25, ge=1, le=10_000, description="Random directions a step (q of the paper).")
    smoothing: float = Field(0.01, gt=0, description="Length of each difference (beta), in units of the parameters.")

    @property
    def forward_passes(self) -> int:
        return self.directions + 1

    def build(self) -> ZerothOrderTrainer:
        from mr_core.trainers.zeroth_order.trainer import ZerothOrderTrainer

        return ZerothOrderTrainer(self)
