"""Back-propagation through the frozen backbone to the adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mr_core.trainers.base import TrainerSpec
from mr_core.trainers.fields import StepsByOptimizer

if TYPE_CHECKING:
    from mr_core.trainers.gradient.trainer import GradientTrainer


class GradientSpec(StepsByOptimizer, TrainerSpec):
    """Gradient descent on the adapter's parameters, through a white-box backbone.

    Settings of Chen et al., 2023 (arXiv:2211.11635) for ImageNet classifiers: Adam, 0.01, drops by 0.1 at
    50 % and 72 % of the epochs. The paper trains 200 epochs at batch 128; the defaults are sized for a first answer.
    """

    kind: Literal["gradient"] = "gradient"

    def build(self) -> GradientTrainer:
        from mr_core.trainers.gradient.trainer import GradientTrainer

        return GradientTrainer(self)
