"""Steps of torch's optimisers along a gradient that is measured or estimated."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mr_core.errors import SpecError
from mr_core.trainers.directions import dimension
from mr_core.trainers.fields import StepsByOptimizer
from mr_core.trainers.rules import BatchLoss, StepRule
from mr_core.trainers.schedule import learning_rate


class OptimizerRule(StepRule):
    """A step of the optimiser for each batch, at the rate that `learning_rate` gives."""

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        self.parameters = parameters
        self._optimizer = optimizer

    @abstractmethod
    def gradient(self, loss: BatchLoss, *, step: int) -> float:
        """Leave the batch's gradient, or an estimate of it, in the parameters; its loss."""

    def move(self, loss: BatchLoss, *, step: int, steps_per_epoch: int) -> float:
        rate = self.learning_rate(step=step, steps_per_epoch=steps_per_epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self._optimizer.zero_grad(set_to_none=True)
        value = self.gradient(loss, step=step)
        if math.isfinite(value):
            self.clip()
            self._optimizer.step()
        return value

    def begin(self) -> None:
        """Nothing depends on it."""

    def clip(self) -> None:
        """Bound the gradient before the step; as it is by default."""

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{index}/{name}": torch.as_tensor(value)
            for index, values in self._optimizer.state_dict()["state"].items()
            for name, value in values.items()
            if value is not None
        }

    def restore(self, tensors: dict[str, Tensor], *, beat: Callable[[], None]) -> None:
        per_parameter: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            index, key = name.split("/", 1)
            per_parameter.setdefault(int(index), {})[key] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": per_parameter, "param_groups": groups})


class ScheduledRule(OptimizerRule):
    """The optimiser and the schedule of a spec."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], spec: StepsByOptimizer) -> None:
        """SpecError where `spec.rates` names no parameter."""
        super().__init__(list(parameters.values()), _optimizer(_groups(parameters, spec), spec))
        self._spec = spec

    def clip(self) -> None:
        if self._spec.clip_value is not None:
            nn.utils.clip_grad_value_(self.parameters, self._spec.clip_value)
        if self._spec.clip_norm is not None:
            norm = self._spec.clip_norm
            nn.utils.clip_grad_norm_(
                self.parameters, dimension(self.parameters) ** 0.5 if isinstance(norm, str) else norm
            )

    def learning_rate(self, *, step: int, steps_per_epoch: int) -> float:
        return learning_rate(self._spec, step=step, steps_per_epoch=steps_per_epoch)


def _optimizer(groups: Sequence[dict[str, Any]], spec: StepsByOptimizer) -> torch.optim.Optimizer:
    rate, decay = spec.learning_rate, spec.weight_decay
    if spec.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, weight_decay=decay)
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
    return torch.optim.SGD(groups, lr=rate, momentum=spec.momentum, weight_decay=decay)


def _groups(parameters: Mapping[str, nn.Parameter], spec: StepsByOptimizer) -> Sequence[dict[str, Any]]:
    """Parameters of one rate together; `scale` is their rate over that of the spec."""
    of_part: dict[str, list[nn.Parameter]] = {"": [], **{part: [] for part in spec.rates}}
    for name, parameter in parameters.items():
        of_part[max((part for part in of_part if name.startswith(part)), key=len)].append(parameter)
    for part, found in of_part.items():
        if part and not found:
            raise SpecError(
                f"rates names {part!r}, but no parameter's name begins so: {', '.join(parameters)}",
                param="trainer.rates",
            )
    scales = {"": 1.0, **{part: rate / spec.learning_rate for part, rate in spec.rates.items()}}
    return [{"params": found, "scale": scales[part]} for part, found in of_part.items() if found]
