"""The spectral density of a kernel from its products with random vectors."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.errors import KernelError
from mr_core.ntk.approximate import Approximate, Method
from mr_core.ntk.memory import MEMORY_CAP_BYTES, require_memory
from mr_core.ntk.operator import Estimate, SymmetricOperator, mean_estimate, rademacher, require_probes

EXHAUSTED = 1e-12  # share of the largest entry of T below which a Krylov space is invariant


@dataclass(frozen=True)
class SpectralDensity(Approximate):
    """The distribution of a kernel's m eigenvalues: for each probe, nodes and weights that sum to 1."""

    side: int
    nodes: Float[Tensor, "l s"]
    weights: Float[Tensor, "l s"]

    @property
    def method(self) -> Method:
        return "stochastic_lanczos_quadrature"

    def mean_of(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """The mean of a function over the eigenvalues, `tr f(Theta) / m`, with its standard error over the probes."""
        return mean_estimate((self.weights * function(self.nodes)).sum(1))

    def mean(self) -> Estimate:
        """The mean eigenvalue, `tr Theta / m`."""
        return self.mean_of(lambda nodes: nodes)

    def density(self, grid: Float[Tensor, " g"], *, width: float) -> Float[Tensor, " g"]:
        """The density at the points of a grid, each node spread to a Gaussian of standard deviation `width`."""
        if not width > 0:
            raise KernelError(f"found a width of {width} for the density's Gaussians, expected more than 0")
        spread = torch.exp(-((grid[:, None] - self.nodes.flatten()) ** 2) / (2 * width**2))
        share = self.weights.flatten() / len(self.nodes)
        return spread @ share / (width * math.sqrt(2 * math.pi))


def spectral_density(
    kernel: SymmetricOperator,
    *,
    generator: torch.Generator,
    n_probes: int = 10,
    n_steps: int = 80,
    without: Float[Tensor, "m k"] | None = None,
    memory_cap: int = MEMORY_CAP_BYTES,
) -> SpectralDensity:
    """Stochastic Lanczos quadrature (Ubaru, Chen and Saad, Fast estimation of tr(f(A)), 2017).

    From each Rademacher vector `n_steps` of Lanczos with full re-orthogonalisation; the eigenvalues of the tridiagonal
    matrix are the nodes, the squared first entries of its eigenvectors their weights. Exact for polynomials of degree
    below 2 `n_steps` but for the choice of vectors, whose error falls with `sqrt(m n_probes)`. All probes go
    through the kernel together: n_steps products of n_probes columns. Memory: 8 m n_probes n_steps bytes.

    `without` are eigenvectors, orthonormal, whose eigenvalues are known and left out: the density is then that of the
    other m - k. Where a few eigenvalues hold most of the trace, they hold most of the error too.

    KernelError for fewer than 2 probes or 1 step, and over the cap.
    """
    m = kernel.shape[0]
    require_probes(n_probes)
    if n_steps < 1:
        raise KernelError(f"found {n_steps} steps of Lanczos, expected at least 1")
    side = m if without is None else m - without.shape[1]
    n_steps = min(n_steps, side)
    require_memory(8 * m * n_probes * n_steps, cap=memory_cap, kind="full", what="Krylov basis")
    vectors = _outside(without, rademacher((m, n_probes), generator=generator).to(kernel.device))
    vectors = vectors / vectors.norm(dim=0)
    bases = vectors.new_zeros(n_probes, n_steps, m)
    tridiagonals = vectors.new_zeros(n_probes, n_steps, n_steps)
    for step in range(n_steps):
        bases[:, step] = vectors.T
        images = _outside(without, kernel @ vectors).T
        tridiagonals[:, step, step] = (images * vectors.T).sum(1)
        for _ in range(2):
            known = torch.einsum("lsm,lm->ls", bases[:, : step + 1], images)
            images = images - torch.einsum("lsm,ls->lm", bases[:, : step + 1], known)
        norms = images.norm(dim=1)
        goes_on = norms > EXHAUSTED * tridiagonals.abs().amax((1, 2))
        norms = torch.where(goes_on, norms, 0.0)
        if step + 1 < n_steps:
            tridiagonals[:, step, step + 1] = tridiagonals[:, step + 1, step] = norms
        vectors = torch.where(goes_on[:, None], images / norms.clamp(min=torch.finfo(norms.dtype).tiny)[:, None], 0.0).T
    nodes, eigenvectors = torch.linalg.eigh(tridiagonals)
    return SpectralDensity(side=side, nodes=nodes, weights=eigenvectors[:, 0].square())


def _outside(span: Tensor | None, vectors: Float[Tensor, "m l"]) -> Float[Tensor, "m l"]:
    return vectors if span is None else vectors - span @ (span.T @ vectors)
