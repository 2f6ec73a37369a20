"""How a run tells what it does, and where it keeps what it needs to go on after a crash. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Phase = Literal["validating", "embedding", "diagnosing", "training", "evaluating", "publishing"]
Level = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Checkpoint:
    """All a phase needs to resume: JSON state and named arrays. Never pickled."""

    step: int
    state: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Spent:
    """What a job has asked of a remote backbone: requests, and the images in them."""

    calls: int = 0
    images: int = 0


class Observer:
    """Does nothing: a run without one is silent, cannot be cancelled, and starts from the beginning.

    Any method may raise JobCancelled, which ends the run; each is called from the run's own thread.
    """

    def phase(self, phase: Phase) -> None:
        """A phase begins."""

    def progress(self, step: int, total: int, *, unit: str = "step") -> None:
        """`step` of `total` in this phase is done; called often, so make it cheap."""

    def beat(self) -> None:
        """Still alive, nothing to report; a chance to cancel."""

    def metrics(self, values: Mapping[str, float]) -> None:
        """One row of metrics, `epoch` or `step` among its keys."""

    def message(self, text: str, *, level: Level = "info") -> None:
        """A sentence for the people who follow the job."""

    def save_checkpoint(self, name: str, checkpoint: Checkpoint) -> None:
        """Keep the checkpoint called `name`, in place of its predecessor."""

    def load_checkpoint(self, name: str) -> Checkpoint | None:
        """The checkpoint called `name` that an earlier attempt kept, or None."""
        return None

    def record_spent(self, spent: Spent) -> None:
        """Keep what the job has spent once the request about to go out is counted in; raises where it cannot."""

    def spent(self) -> Spent:
        """What earlier attempts have spent."""
        return Spent()


class Beating(Observer):
    """Tells another observer of a part of its run nothing but that it lives."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def progress(self, step: int, total: int, *, unit: str = "step") -> None:
        self._observer.beat()

    def beat(self) -> None:
        self._observer.beat()


def as_checkpoint_array(values: Any) -> NDArray[Any]:
    """A contiguous numpy copy of a tensor or array, as safetensors wants it, of the same shape (one of none too)."""
    array = values.detach().cpu().numpy() if hasattr(values, "detach") else values
    return np.array(array, order="C")
