"""The family's contract: a spec that says what a score reads and which way is better, and computes it. Torch-free."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ConfigDict

from mr_core.registry import MethodSpec

if TYPE_CHECKING:
    from mr_core.scores.arrays import Array

Read = Literal["features", "random_features", "source_logits", "reference_logits", "kernel", "labels"]
Direction = Literal["higher", "lower", "context"]


class ScoreSpec(MethodSpec, ABC):
    """Hyper-parameters of a score.

    What scores read, of n target samples through the input transform before training:

    - `features`, (n, d), and `labels`, (n,), class numbers from 0;
    - `random_features`, (n, r): the same samples through the same architecture with random weights;
    - `source_logits`, (n, z), and `reference_logits`, (m, z): the source model's of m samples of its own domain;
    - `kernel`: symmetric positive semi-definite, (n, n), or a full tangent kernel (n c, n c), rows sample-major.
    """

    model_config = ConfigDict(defer_build=True)  # a gateway starts without their schemas

    reads: ClassVar[tuple[Read, ...]]
    direction: ClassVar[Direction]  # which values speak for the source; context: neither

    kind: str

    @abstractmethod
    def compute(self, inputs: Mapping[Read, Array]) -> float:
        """The score of the inputs that it reads; others may be there. ScoreError where they are not what it reads."""
