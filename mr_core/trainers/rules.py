"""How a batch moves an adapter's parameters."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mr_core.reprogrammed import Trainable
from mr_core.trainers.losses import TrainingLoss
from mr_core.trainers.trainer import LabelledInputs


@dataclass(frozen=True)
class BatchLoss:
    """The mean loss over one batch, at the adapter's parameters as they are.

    The batch is worked through in passes of the model's `batch_limit` samples, so memory does not grow with it.
    """

    losses: TrainingLoss
    model: Trainable
    data: LabelledInputs
    indices: np.ndarray[Any, Any]
    device: torch.device
    seen: Callable[[Tensor, Tensor], None] | None = None  # hears what the mapping read, and the labels, in `backward`

    @torch.no_grad()
    def value(self) -> float:
        """Forward passes alone."""
        return sum(float(self._of_pass(start)) for start in self._starts())

    def backward(self) -> float:
        """Add its gradient to that of the parameters; return the loss."""
        total = 0.0
        for start in self._starts():
            loss = self._of_pass(start, self.seen)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _starts(self) -> range:
        return range(0, len(self.indices), self.model.batch_limit)

    def _of_pass(self, start: int, seen: Callable[[Tensor, Tensor], None] | None = None) -> Tensor:
        chunk = self.indices[start : start + self.model.batch_limit]
        batch, targets = self.data.batch(chunk, self.device), self.data.targets(chunk, self.device)
        if seen is None or self.model.label_mapping is None:
            logits = self.model(batch)
        else:
            outputs = self.model.backbone_outputs(batch)
            seen(outputs.detach(), targets)
            logits = self.model.label_mapping(outputs)
        return self.losses(logits, targets).sum() / len(self.indices)


class StepRule(ABC):
    """How a batch moves the parameters. What it remembers is in `tensors`; all else is a function of the step."""

    @abstractmethod
    def begin(self) -> None:
        """The parameters are those that training starts from; called once, unless an earlier attempt's are restored."""

    @abstractmethod
    def learning_rate(self, *, step: int, steps_per_epoch: int) -> float:
        """That of a step, counted from 0 over all epochs."""

    @abstractmethod
    def move(self, loss: BatchLoss, *, step: int, steps_per_epoch: int) -> float:
        """Move the parameters by what the batch says; its loss before that."""

    def judged(self) -> AbstractContextManager[None]:
        """Inside, the parameters are those to be validated and kept: as they are, unless the rule has better ones."""
        return nullcontext()

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What the rule remembers, by name."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], *, beat: Callable[[], None]) -> None:
        """Remember what an earlier attempt's rule did; `beat` is called now and then where that takes long."""
