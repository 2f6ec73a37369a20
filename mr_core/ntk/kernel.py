"""What a tangent kernel is here: a sum over groups of parameters, each perhaps a Kronecker product."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.ntk.memory import MEMORY_CAP_BYTES, require_memory

Kind = Literal["full", "trace", "pseudo"]
Progress = Callable[[int, int], None]  # images done, images in all; may raise to stop

GRAM_ROWS = 256  # rows of a Gram block
GRAM_COLUMNS = 2048  # columns cast to float64 at a time


@dataclass(frozen=True)
class KernelPart:
    """`matrix (x) I_copies`: the kernel of one group of parameters, symmetric float64."""

    matrix: Float[Tensor, "m m"]
    copies: int = 1

    @property
    def trace(self) -> float:
        return float(self.matrix.trace()) * self.copies

    def dense(self) -> Float[Tensor, "r r"]:
        """The Kronecker product written out; the matrix itself where `copies` is 1."""
        if self.copies == 1:
            return self.matrix
        return torch.kron(self.matrix, torch.eye(self.copies, dtype=self.matrix.dtype, device=self.matrix.device))


@dataclass(frozen=True)
class MeasuredError:
    """How far a kernel of rounded Jacobians lies from the exact one, in the block of a few samples.

    The Frobenius norm of the difference over that of the exact block.
    """

    relative: float
    samples: tuple[int, ...]

    def told(self) -> dict[str, Any]:
        """As a summary tells it."""
        return {"relative": self.relative, "samples": list(self.samples)}


@dataclass(frozen=True)
class TangentKernel:
    """An empirical tangent kernel and the parts it is the sum of, by group of parameters.

    `error` is None where the Jacobian was taken in the module's own precision.
    """

    kind: Kind
    n_samples: int
    n_outputs: int
    n_parameters: int
    groups: Mapping[str, KernelPart]
    error: MeasuredError | None = None

    def total(self, *, memory_cap: int = MEMORY_CAP_BYTES) -> KernelPart:
        """The sum over groups; stays a Kronecker product where every group is one with the same factor.

        Raises KernelError where the sum has to be written out and is over `memory_cap` bytes.
        """
        parts = list(self.groups.values())
        if len({part.copies for part in parts}) > 1:
            side = self.n_samples * self.n_outputs
            require_memory(2 * side * side * 8, cap=memory_cap, kind=self.kind, what="sum over groups")
            parts = [KernelPart(part.dense()) for part in parts]
        matrix = parts[0].matrix
        for part in parts[1:]:
            matrix = matrix + part.matrix
        return KernelPart(matrix, parts[0].copies)


def accumulate_gram(
    gram: Float[Tensor, "m m"], rows: Float[Tensor, "m p"], *, weights: Float[Tensor, "n n"] | None = None
) -> None:
    """Add `rows rows^T` to the lower block half of the float64 `gram`, in place.

    With `weights` between samples, of m / n consecutive rows each, every product counts times its pair's weight.
    Rows of lower precision are cast to float64 a slice of columns at a time, so products and sums are float64.
    Memory: m x 2048 float64, and 256 x m more with weights.
    """
    m, p = rows.shape
    sample_of_row = None if weights is None else torch.arange(m, device=rows.device) // (m // len(weights))
    for first in range(0, p, GRAM_COLUMNS):
        columns = rows[:, first : first + GRAM_COLUMNS].to(torch.float64)
        for start in range(0, m, GRAM_ROWS):
            stop = min(start + GRAM_ROWS, m)
            if weights is None or sample_of_row is None:
                gram[start:stop, :stop].addmm_(columns[start:stop], columns[:stop].T)
            else:
                pairs = weights[sample_of_row[start:stop, None], sample_of_row[None, :stop]]
                gram[start:stop, :stop].addcmul_(columns[start:stop] @ columns[:stop].T, pairs)


def mirror_lower_half(gram: Float[Tensor, "m m"]) -> None:
    """Make `gram` exactly symmetric from its lower half, in place."""
    m = gram.shape[0]
    for start in range(0, m, GRAM_ROWS):
        stop = min(start + GRAM_ROWS, m)
        block = gram[start:stop, start:stop]
        block.copy_(block.tril() + block.tril(-1).T)
        gram[:start, start:stop] = gram[start:stop, :start].T
