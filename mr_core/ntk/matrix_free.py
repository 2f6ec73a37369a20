"""What a spectrum tells of a kernel too large for a dense eigensolver: its top, its trace, its shape."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.ntk.kernel import MeasuredError
from mr_core.ntk.lanczos import TopEigenpairs, top_eigenpairs
from mr_core.ntk.memory import MEMORY_CAP_BYTES, require_memory
from mr_core.ntk.operator import Estimate, SymmetricOperator
from mr_core.ntk.quadrature import SpectralDensity, spectral_density
from mr_core.ntk.spectrum import Spectrum, energy_grid, resolution_limit
from mr_core.scores.spectral import label_energies

N_EIGENPAIRS: Final = 50
BLOCK_SIZE: Final = 20
TOLERANCE: Final = 1e-6
"""Of the largest eigenvalue, for each residual: an eigenvalue is then off by its square over the gap to the next."""
N_PROBES: Final = 10
N_STEPS: Final = 40
N_BINS: Final = 20


def matrix_free_spectrum(
    kernel: SymmetricOperator,
    targets: Float[Tensor, "n c"],
    *,
    n_parameters: int,
    seed: int,
    memory_cap: int = MEMORY_CAP_BYTES,
    error: MeasuredError | None = None,
) -> Spectrum:
    """The spectrum of a full kernel `(n c, n c)` by its products alone: the 50 largest eigenvalues and no others.

    The top by block Lanczos, each residual at most 1e-6 of the largest eigenvalue; trace, effective rank and density by
    stochastic Lanczos quadrature, with standard errors, the trace exactly where the kernel knows its own. `lambda_min`,
    `condition_number`, `numerical_rank` and `kernel_target_alignment` are None whatever the kernel: its bottom is not
    looked at (`method` says so), and the resolution's reason is `rank_limited` where counting alone shows a singular
    kernel, else None.

    KernelError over the cap, or where Lanczos does not converge.
    """
    n_samples, n_outputs = targets.shape
    m = n_samples * n_outputs
    require_matrix_free_memory(m, memory_cap=memory_cap)
    generator = torch.Generator().manual_seed(seed)
    top = top_eigenpairs(
        kernel,
        min(N_EIGENPAIRS, m // 2),
        generator=generator,
        block_size=min(n_outputs, BLOCK_SIZE),
        tolerance=max(TOLERANCE, 100 * torch.finfo(kernel.dtype).eps),
        memory_cap=memory_cap,
    )
    rest = spectral_density(
        kernel,
        generator=generator,
        n_probes=N_PROBES,
        n_steps=N_STEPS,
        without=top.vectors,
        memory_cap=memory_cap,
    )
    top, rest = _on_cpu(top), replace(rest, nodes=rest.nodes.cpu(), weights=rest.weights.cpu())
    trace = sum_over_eigenvalues(top, rest, lambda values: values)
    if isinstance(exact := getattr(kernel, "trace", None), float):
        trace = Estimate(exact, 0.0)
    values = top.values.numpy()
    cumulative = label_energies(top.vectors, targets).sum(1).cumsum()
    largest = float(values[0])
    limit = resolution_limit(m, largest)
    if error is not None:
        limit = max(limit, error.relative * sum_over_eigenvalues(top, rest, torch.square).value ** 0.5)
    rank = effective_rank_estimate(top, rest, trace.value)
    summary = {
        "n_samples": n_samples,
        "n_classes": n_outputs,
        "n_parameters": n_parameters,
        "kernel": "full",
        "method": top.method,
        "lambda_max": largest,
        "lambda_min": top.lambda_min,
        "numerical_rank": None,
        "condition_number": top.condition_number,
        "effective_rank": rank.value,
        "trace": trace.value,
        "label_energy": [[k, float(cumulative[k - 1])] for k in energy_grid(len(values))],
        "kernel_target_alignment": None,
        "resolution": {"limit": limit, "reason": "rank_limited" if m > n_parameters else None},
        "error": None if error is None else error.told(),
        "approximation": _approximation(top, rest, rank=rank, trace=trace, limit=limit),
    }
    return Spectrum(values, cumulative, summary)


def require_matrix_free_memory(m: int, *, memory_cap: int = MEMORY_CAP_BYTES) -> None:
    """KernelError where Lanczos' basis for a kernel of m rows would be over the cap, known before any computation."""
    most_products = 10 * N_EIGENPAIRS + 20 * BLOCK_SIZE
    need = 8 * m * max(2 * min(m, most_products), N_PROBES * N_STEPS)
    require_memory(need, cap=memory_cap, kind="full", what="Krylov basis")


def _on_cpu(top: TopEigenpairs) -> TopEigenpairs:
    return replace(top, values=top.values.cpu(), vectors=top.vectors.cpu(), residuals=top.residuals.cpu())


def sum_over_eigenvalues(top: TopEigenpairs, rest: SpectralDensity, function: Callable[[Tensor], Tensor]) -> Estimate:
    """`tr f(Theta)`: over the top exactly, over the rest by quadrature.

    A few eigenvalues hold most of a prompt's kernel: random vectors alone would estimate its trace to a fifth.
    """
    mean = rest.mean_of(function)
    return Estimate(float(function(top.values).sum()) + rest.side * mean.value, rest.side * mean.standard_error)


def effective_rank_estimate(top: TopEigenpairs, rest: SpectralDensity, trace: float) -> Estimate:
    """`exp(-tr p log p)` with `p = Theta / trace`, and its standard error to first order; 0 for a zero kernel."""
    if not trace > 0:
        return Estimate(0.0, 0.0)
    entropy = sum_over_eigenvalues(
        top, rest, lambda values: -torch.special.xlogy(share := values.clamp(min=0) / trace, share)
    )
    value = math.exp(entropy.value)
    return Estimate(value, value * entropy.standard_error)


def _approximation(
    top: TopEigenpairs, rest: SpectralDensity, *, rank: Estimate, trace: Estimate, limit: float
) -> dict[str, Any]:
    return {
        "n_eigenpairs": len(top.values),
        "largest_residual": float(top.residuals.max()),
        "n_products": top.n_products,
        "effective_rank_standard_error": rank.standard_error,
        "trace_standard_error": trace.standard_error,
        "density": _binned(top, rest, limit=limit),
    }


def _binned(top: TopEigenpairs, rest: SpectralDensity, *, limit: float) -> dict[str, Any] | None:
    """The share of all eigenvalues in each bin between edges that are even on a log axis, and of those below them.

    The lowest edge is the highest of the probes' smallest nodes: its weight stands for all that lies below, which so
    few steps do not tell apart. None where that leaves no bins.
    """
    low, high = max(limit, float(rest.nodes.amin(1).max())), float(top.values[0])
    if not low < high:
        return None
    edges = np.geomspace(low, high, N_BINS + 1)
    inner = torch.from_numpy(edges[:-1])
    counts = torch.zeros(N_BINS + 1, dtype=torch.float64)
    counts.index_add_(0, torch.bucketize(top.values, inner), torch.ones_like(top.values))
    of_rest = rest.weights.flatten() * (rest.side / len(rest.nodes))
    counts.index_add_(0, torch.bucketize(rest.nodes.flatten(), inner), of_rest)
    shares = counts / (len(top.values) + rest.side)
    return {
        "method": rest.method,
        "n_probes": len(rest.nodes),
        "n_steps": rest.nodes.shape[1],
        "edges": edges.tolist(),
        "shares": shares[1:].tolist(),
        "share_below": float(shares[0]),
    }
