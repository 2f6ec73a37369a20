"""The exponential average of the parameters, which is judged in their place."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mr_core.parameters import put_back
from mr_core.trainers.rules import BatchLoss, StepRule

_AVERAGE = "average/"


class AveragedRule(StepRule):
    """Another rule, and the exponential average of the parameters it moves (Polyak and Juditsky, 1992).

    In step t, from 0, the average keeps the share `min(decay, (1 + t) / (10 + t))` of itself, so that the start is
    soon forgotten. Buffers, such as batch norm's statistics and counted mappings, are not averaged.
    """

    def __init__(self, rule: StepRule, parameters: Sequence[nn.Parameter], *, decay: float) -> None:
        self._rule, self._parameters, self._decay = rule, parameters, decay
        self._average = [parameter.detach().clone() for parameter in parameters]

    def begin(self) -> None:
        self._rule.begin()
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.copy_(parameter.detach())

    def learning_rate(self, *, step: int, steps_per_epoch: int) -> float:
        return self._rule.learning_rate(step=step, steps_per_epoch=steps_per_epoch)

    def move(self, loss: BatchLoss, *, step: int, steps_per_epoch: int) -> float:
        value = self._rule.move(loss, step=step, steps_per_epoch=steps_per_epoch)
        share = min(self._decay, (1 + step) / (10 + step))
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.lerp_(parameter.detach(), 1 - share)
        return value

    @contextmanager
    def judged(self) -> Iterator[None]:
        with put_back(self._parameters):
            with torch.no_grad():
                for parameter, average in zip(self._parameters, self._average, strict=True):
                    parameter.copy_(average)
            yield

    def tensors(self) -> dict[str, Tensor]:
        return self._rule.tensors() | {f"{_AVERAGE}{index}": tensor for index, tensor in enumerate(self._average)}

    def restore(self, tensors: dict[str, Tensor], *, beat: Callable[[], None]) -> None:
        of_rule = {name: tensor for name, tensor in tensors.items() if not name.startswith(_AVERAGE)}
        self._rule.restore(of_rule, beat=beat)
        for index, average in enumerate(self._average):
            if f"{_AVERAGE}{index}" in tensors:
                average.copy_(tensors[f"{_AVERAGE}{index}"])
