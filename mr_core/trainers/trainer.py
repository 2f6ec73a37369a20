"""What every trainer does: fit an adapter's parameters and buffers, resumably."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mr_core.observer import Observer
from mr_core.reprogrammed import Trainable


class LabelledInputs(ABC):
    """Samples as the model takes them, and their labels `(n,)` int64."""

    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def batch(self, indices: NDArray[np.int64] | slice, device: torch.device) -> Float[Tensor, "n ..."]:
        """Those samples as the model takes them."""

    def at_epoch(self, epoch: int, seed: int) -> "LabelledInputs":
        """The samples as training sees them in that epoch: the same in every one, unless they are augmented."""
        return self

    def targets(self, indices: NDArray[np.int64] | slice, device: torch.device) -> Tensor:
        """Those labels as int64."""
        return torch.from_numpy(self.labels[indices]).to(device)


@dataclass(frozen=True)
class LabelledImages(LabelledInputs):
    """Images as bytes `(n, 3, k, k)`, possibly a memory map."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def batch(self, indices: NDArray[np.int64] | slice, device: torch.device) -> Float[Tensor, "n 3 k k"]:
        """Those images as float32 in [0, 1]; only they are read from the map."""
        return torch.from_numpy(np.array(self.images[indices])).to(device).float().div_(255)


@dataclass(frozen=True)
class LabelledFeatures(LabelledInputs):
    """Outputs of the frozen backbone `(n, d)`, for a `FeatureHead`."""

    features: Float[Tensor, "n d"]
    labels: NDArray[np.int64]

    def batch(self, indices: NDArray[np.int64] | slice, device: torch.device) -> Float[Tensor, "n d"]:
        """Those outputs."""
        return self.features[indices].to(device)


@dataclass(frozen=True)
class TrainingRun:
    """What a trainer runs with, beside its spec."""

    train: LabelledInputs
    validation: LabelledInputs | None
    observer: Observer
    device: torch.device
    seed: int
    name: str = "training"  # of the checkpoint; rows of metrics of any other run carry it before each key
    max_seconds: float | None = None
    repeat: tuple[int, int] = (0, 1)  # which of how many trainings of the job this is

    def progress(self, done: int, total: int) -> None:
        """So many of the images that this training passes are done; the observer hears of all trainings together."""
        index, repeats = self.repeat
        self.observer.progress(index * total + done, repeats * total, unit="image")

    def report(self, row: Mapping[str, float]) -> None:
        """Hand a row of metrics to the observer; `random_backbone/epoch` is not the job's own epoch."""
        is_main = self.name == "training"
        self.observer.metrics(row if is_main else {f"{self.name}/{key}": value for key, value in row.items()})


@dataclass(frozen=True)
class TrainingHistory:
    """One row of metrics an epoch, the epoch whose adapter was kept, and why training ended.

    Epochs count from 0; -1 kept is the adapter as it was before training, which competes where training may well end
    below it. A spent call budget stops in the middle of an epoch, which has no row; it is the one kept where there is
    no other.
    """

    rows: list[dict[str, float]]
    kept_epoch: int
    stopped_by_budget: bool
    calls_spent: bool = False  # whether that budget was the one of calls on a remote backbone
    stopped_early: bool = False  # no better validation accuracy for as long as the trainer waits


class Trainer(ABC):
    """Fits the adapter of a reprogrammed model, or its head alone; the backbone is never written."""

    @abstractmethod
    def train(self, model: Trainable, run: TrainingRun) -> TrainingHistory:
        """Train; on return the model holds the kept adapter. TrainingDiverged where the loss is not finite."""
