"""Kernels approximated by a factor of few columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.errors import KernelError
from mr_core.ntk.approximate import Approximate, Method
from mr_core.ntk.memory import MEMORY_CAP_BYTES, require_memory
from mr_core.ntk.operator import KernelOperator, SymmetricOperator


@dataclass(frozen=True)
class ApproximateKernel(Approximate):
    """`Theta ~ F F^T`, with a factor F of few columns."""

    factor: Float[Tensor, "m r"]
    made_by: Literal["nystrom", "random_projection"]

    @property
    def method(self) -> Method:
        return self.made_by

    @property
    def trace(self) -> float:
        return float(self.factor.square().sum())

    def top_eigenvalues(self, k: int) -> Float[Tensor, " k"]:
        """The k largest of `F F^T`, descending; KernelError for more than F has columns, as the others are 0."""
        rank = min(self.factor.shape)
        if not 1 <= k <= rank:
            raise KernelError(f"found {k} eigenvalues asked of a kernel of rank {rank} at most, expected 1 to {rank}")
        values: Tensor = torch.linalg.svdvals(self.factor)
        return values[:k].square()

    def dense(self, *, memory_cap: int = MEMORY_CAP_BYTES) -> Float[Tensor, "m m"]:
        """`F F^T` written out; KernelError over the cap."""
        require_memory(8 * len(self.factor) ** 2, cap=memory_cap, kind="full", what="approximate matrix")
        return self.factor @ self.factor.T


def nystrom(
    kernel: SymmetricOperator, landmarks: Sequence[int], *, memory_cap: int = MEMORY_CAP_BYTES
) -> ApproximateKernel:
    """`K_nl K_ll^+ K_ln` from the columns of l landmark rows (Williams and Seeger, Using the Nystrom method, 2001).

    `landmarks` are rows of the kernel: of sample i all `i C + c`. Exact where their columns span the kernel's. One
    product with l columns; eigenvalues of `K_ll` within rounding of 0 are left out. Memory: 24 m l bytes.

    KernelError where a landmark is not a row of the kernel or is named twice, and over the cap.
    """
    m = kernel.shape[0]
    rows = list(landmarks)
    if not rows or len(set(rows)) < len(rows) or not set(rows) <= set(range(m)):
        found = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "") if rows else "none"
        raise KernelError(f"the landmarks are {found}; expected different rows from 0 to {m - 1}")
    require_memory(24 * m * len(rows), cap=memory_cap, kind="full", what="Nystrom factor")
    index = torch.tensor(rows, device=kernel.device)
    units = torch.zeros(m, len(rows), dtype=torch.float64, device=kernel.device)
    units[index, torch.arange(len(rows), device=kernel.device)] = 1
    columns = kernel @ units
    inner = columns[index]
    values, vectors = torch.linalg.eigh((inner + inner.T) / 2)
    is_resolved = values > len(rows) * torch.finfo(kernel.dtype).eps * values[-1].clamp(min=0)
    return ApproximateKernel(columns @ (vectors[:, is_resolved] / values[is_resolved].sqrt()), "nystrom")


def random_projection(
    kernel: KernelOperator, n_directions: int, *, generator: torch.Generator, memory_cap: int = MEMORY_CAP_BYTES
) -> ApproximateKernel:
    """`S S^T` with `S = J R / sqrt(k)` and R of random signs, `(P, k)` (Park et al., TRAK, 2023, arXiv:2303.14186).

    Unbiased; the relative error of an entry falls with `1 / sqrt(k)`. k Jacobian-vector products, R never kept.
    Memory: 8 m k bytes, and 256 MiB of R at a time.

    KernelError for fewer than one direction, and over the cap.
    """
    if n_directions < 1:
        raise KernelError(f"found {n_directions} random directions, expected at least 1")
    require_memory(8 * kernel.shape[0] * n_directions, cap=memory_cap, kind="full", what="random projection")
    width = kernel.directions_at_once
    blocks = [
        kernel.push(kernel.random_directions(min(width, n_directions - start), generator=generator))
        for start in range(0, n_directions, width)
    ]
    return ApproximateKernel(torch.cat(blocks, dim=1) / n_directions**0.5, "random_projection")
