"""Kernels that are never formed, from what is known of their parts: stored rows, a factor, a sum."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.ntk.operator import SymmetricOperator
from mr_core.ntk.stored_rows import StoredRows


class RowsOperator:
    """`J J^T` of stored rows by its products, `(N C, N C)`: each reads the rows twice, and takes float64.

    C backward passes a sample were spent on the rows once, which `KernelOperator` spends on a few products. Memory:
    P numbers a vector, and a slab of a stretch. `beat` is called once a stretch and may raise.
    """

    dtype = torch.float64
    device = torch.device("cpu")

    def __init__(self, rows: StoredRows, *, n_outputs: int, beat: Callable[[], None] = lambda: None) -> None:
        self._rows = rows
        self._n_outputs = n_outputs
        self._beat = beat
        n_samples, self.trace = 0, 0.0
        for samples, slabs in rows.stretches():
            n_samples = samples.stop
            self.trace += sum(float(slab.double().square().sum()) for slab in slabs)
            beat()
        self.shape = torch.Size((n_samples * n_outputs, n_samples * n_outputs))

    def __matmul__(self, vectors: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        columns = vectors.to(torch.float64).reshape(len(vectors), -1)
        pulled: list[Tensor] = []
        for samples, slabs in self._rows.stretches():
            of_stretch = columns[self._span(samples)]
            parts = [slab.flatten(0, 1).double().T @ of_stretch for slab in slabs]
            pulled = [total + part for total, part in zip(pulled, parts, strict=True)] if pulled else parts
            self._beat()
        products = []
        for _, slabs in self._rows.stretches():
            terms = (slab.flatten(0, 1).double() @ direction for slab, direction in zip(slabs, pulled, strict=True))
            products.append(sum(terms, start=torch.zeros((), dtype=torch.float64)))
            self._beat()
        return torch.cat(products).view(vectors.shape)

    def _span(self, samples: slice) -> slice:
        return slice(samples.start * self._n_outputs, samples.stop * self._n_outputs)


class KroneckerOperator:
    """`matrix (x) I_copies` by its products, as of a linear head."""

    dtype = torch.float64
    device = torch.device("cpu")

    def __init__(self, matrix: Float[Tensor, "n n"], *, copies: int) -> None:
        self._matrix = matrix.to("cpu", torch.float64)
        self._copies = copies
        self.shape = torch.Size((len(matrix) * copies, len(matrix) * copies))

    @property
    def trace(self) -> float:
        return float(self._matrix.trace()) * self._copies

    def __matmul__(self, vectors: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        n = len(self._matrix)
        return (self._matrix @ vectors.to(torch.float64).reshape(n, -1)).view(vectors.shape)


class SumOperator:
    """The sum of kernels of the same side, in the lowest of their precisions."""

    device = torch.device("cpu")

    def __init__(self, parts: Sequence[SymmetricOperator]) -> None:
        self._parts = tuple(parts)
        self.shape = self._parts[0].shape
        self.dtype = max((part.dtype for part in parts), key=lambda dtype: torch.finfo(dtype).eps)

    @property
    def trace(self) -> float | None:
        """The sum of the parts' traces; None where one does not know its own."""
        traces = [trace for part in self._parts if isinstance(trace := getattr(part, "trace", None), float)]
        return sum(traces) if len(traces) == len(self._parts) else None

    def __matmul__(self, vectors: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return sum((part @ vectors for part in self._parts[1:]), start=self._parts[0] @ vectors)
