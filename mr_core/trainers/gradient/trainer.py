"""Gradient descent through the frozen backbone."""

from collections.abc import Mapping

from torch import nn

from mr_core.trainers.epochs import EpochTrainer
from mr_core.trainers.gradient.spec import GradientSpec
from mr_core.trainers.optimizer import ScheduledRule
from mr_core.trainers.rules import BatchLoss, StepRule


class GradientTrainer(EpochTrainer):
    """Back-propagation; the gradients of a batch's passes add up."""

    def __init__(self, spec: GradientSpec) -> None:
        super().__init__(spec, forward_passes=spec.forward_passes)
        self._steps = spec

    def rule(self, parameters: Mapping[str, nn.Parameter], *, seed: int) -> StepRule:
        return _BackPropagation(parameters, self._steps)


class _BackPropagation(ScheduledRule):
    def gradient(self, loss: BatchLoss, *, step: int) -> float:
        return loss.backward()
