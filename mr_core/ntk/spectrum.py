"""Eigenvalues of a kernel, and what they say, with what float64 cannot resolve left unsaid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mr_core.errors import KernelError
from mr_core.ntk.kernel import KernelPart, TangentKernel
from mr_core.ntk.memory import MEMORY_CAP_BYTES, require_memory
from mr_core.scores.alignment import kernel_target_alignment
from mr_core.scores.spectral import effective_rank, label_energies

UNIT_ROUNDOFF = 1.1e-16  # of float64
EPSILON = float(np.finfo(np.float64).eps)
Unresolved = Literal["rank_limited", "below_precision"]


@dataclass(frozen=True)
class Eigen:
    """Eigenvalues in descending order and their eigenvectors, as columns, of the factor of `matrix (x) I_copies`."""

    values: Float[Tensor, " m"]
    vectors: Float[Tensor, "m m"]
    copies: int = 1

    def all_values(self) -> Float[Tensor, " r"]:
        """Of the whole Kronecker product: each eigenvalue `copies` times."""
        return self.values.repeat_interleave(self.copies)


def eigendecomposition(part: KernelPart, *, kind: str = "full", memory_cap: int = MEMORY_CAP_BYTES) -> Eigen:
    """Eigenpairs of a symmetric positive semi-definite kernel in float64, on the CPU; of the factor alone.

    KernelError where an eigenvalue lies below `-n eps lambda_max`, so is no rounding of 0: none is clipped.
    Also where the three matrices that it takes, 24 m^2 bytes, are over `memory_cap`.
    """
    m = part.matrix.shape[0]
    require_memory(3 * 8 * m * m, cap=memory_cap, kind=kind, what="eigen-decomposition")
    values, vectors = torch.linalg.eigh(part.matrix.to("cpu", torch.float64))
    values, vectors = values.flip(0), vectors.flip(1)
    largest, smallest = float(values[0]), float(values[-1])
    if smallest < -m * EPSILON * max(largest, 0.0):
        raise KernelError(
            f"the kernel has the eigenvalue {smallest:.3e} beside a largest one of {largest:.3e}: "
            "it is not positive semi-definite, so it is not a tangent kernel"
        )
    return Eigen(values, vectors, part.copies)


def resolution_limit(n: int, lambda_max: float) -> float:
    """`n 1.1e-16 lambda_max`: eigenvalues of an (n, n) float64 Gram matrix below it are rounding.

    It holds for the Gram of the Jacobian as stored. A float32 Jacobian is itself rounded, by about 1e-7 of its
    entries and more after a deep backward pass: directions that should vanish exactly then come out at up to
    about 1e-14 of the trace, which the limit does not see when n is small.
    """
    return n * UNIT_ROUNDOFF * max(lambda_max, 0.0)


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues, descending, with the cumulative label energy beside them, and their summary."""

    eigenvalues: NDArray[np.float64]
    label_energy: NDArray[np.float64]
    summary: Mapping[str, Any]


def spectrum(kernel: TangentKernel, total: KernelPart, eigen: Eigen, targets: Float[Tensor, "n c"]) -> Spectrum:
    """The spectrum of `total`, the sum of `kernel`'s groups, with one-hot `targets`.

    Label energy and alignment take the samples centred. For a full kernel the label vector is the centred one-hot
    matrix flattened sample-major, `y[n C + c] = Y[n, c] - mean_n Y[n, c]`; for the (N, N) kinds each class is a
    column. Within a repeated eigenvalue the order of label energies is arbitrary.

    `lambda_min` and `condition_number` are None where N C exceeds the number of parameters P, so that the full
    kernel is singular by counting (`rank_limited`, for all kinds: the reduced ones hide it), or where the smallest
    eigenvalue is below the resolution limit (`below_precision`). Of a kernel with a measured error the limit is at
    least that error times its Frobenius norm: no eigenvalue moves further (Weyl), if the rest is as good as the block.
    """
    values = eigen.all_values().numpy()
    energies = label_energies(eigen.vectors, targets)
    if eigen.copies == 1:
        energies = energies.sum(1, keepdims=True)
    cumulative = energies.flatten().cumsum()
    largest, smallest = float(values[0]), float(values[-1])
    limit = resolution_limit(len(values), largest)
    if kernel.error is not None:
        limit = max(limit, kernel.error.relative * float(np.linalg.norm(values)))
    reason: Unresolved | None = None
    if kernel.n_samples * kernel.n_outputs > kernel.n_parameters:
        reason = "rank_limited"
    elif smallest <= limit:
        reason = "below_precision"
    summary = {
        "n_samples": kernel.n_samples,
        "n_classes": kernel.n_outputs,
        "n_parameters": kernel.n_parameters,
        "kernel": kernel.kind,
        "method": "dense",
        "lambda_max": largest,
        "lambda_min": None if reason else smallest,
        "numerical_rank": int((values > limit).sum()),
        "condition_number": None if reason else largest / smallest,
        "effective_rank": effective_rank(values),
        "trace": total.trace,
        "label_energy": [[k, float(cumulative[k - 1])] for k in energy_grid(len(values))],
        "kernel_target_alignment": kernel_target_alignment(total.matrix, targets, copies=total.copies),
        "resolution": {"limit": limit, "reason": reason},
        "error": None if kernel.error is None else kernel.error.told(),
        "approximation": None,
    }
    return Spectrum(values, cumulative, summary)


def energy_grid(n: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... up to n, and n itself."""
    grid = [digit * 10**power for power in range(len(str(n))) for digit in (1, 2, 5)]
    return [*(k for k in grid if k < n), n]
