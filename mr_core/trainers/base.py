"""The family's contract: a spec that builds what trains an adapter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from mr_core.registry import MethodSpec

if TYPE_CHECKING:
    from mr_core.trainers.trainer import Trainer


class TrainerSpec(MethodSpec, ABC):
    """Hyper-parameters of a trainer."""

    kind: str

    @property
    def forward_passes(self) -> int | None:
        """Forward passes of the batch that a step takes; None where it takes the backbone's gradient too."""
        return None

    @abstractmethod
    def build(self) -> Trainer:
        """The trainer."""
