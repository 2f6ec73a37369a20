"""The top eigenpairs of a kernel from its products with vectors."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.errors import KernelError
from mr_core.ntk.approximate import Approximate, Method
from mr_core.ntk.memory import MEMORY_CAP_BYTES, require_memory
from mr_core.ntk.operator import SymmetricOperator

WEAK = 1e-12  # share of a block's norm below which a direction is rounding


@dataclass(frozen=True)
class TopEigenpairs(Approximate):
    """The k largest eigenvalues, descending, their vectors as columns, and `|Theta u - lambda u|` of each.

    An eigenvalue of the kernel lies within the residual of each value.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "m k"]
    residuals: Float[Tensor, " k"]
    n_products: int

    @property
    def method(self) -> Method:
        return "lanczos"


def top_eigenpairs(
    kernel: SymmetricOperator,
    k: int,
    *,
    generator: torch.Generator,
    block_size: int = 10,
    tolerance: float | None = None,
    max_products: int | None = None,
    memory_cap: int = MEMORY_CAP_BYTES,
) -> TopEigenpairs:
    """The k largest eigenpairs of a symmetric kernel by block Lanczos, fully re-orthogonalised, in float64.

    Golub and Underwood, The block Lanczos method for computing eigenvalues, 1977. Every new block is made orthogonal
    to all before it, twice: otherwise copies of eigenvalues found already come back. A start of b vectors
    sees an eigenvalue at most b times, so of one that is repeated more often copies may be missing; of a network
    whose outputs share little each comes about C times: take `block_size` C.

    Ends where each of the k residuals is at most `tolerance` of the largest eigenvalue: 1e-8 if None, or 100
    roundings of the kernel's products (1.2e-5 in float32). `max_products` is 10 k + 20 blocks if None. Memory:
    16 m bytes for each product.

    KernelError where k is not between 1 and m, over the cap, or not converged after `max_products`.
    """
    m = kernel.shape[0]
    if not 1 <= k <= m:
        raise KernelError(f"found k = {k} eigenpairs to compute, expected 1 to {m}, the side of the kernel")
    if block_size < 1:
        raise KernelError(f"found a block of {block_size} vectors, expected at least 1")
    limit = min(m, max(k, 10 * k + 20 * block_size if max_products is None else max_products))
    require_memory(16 * m * limit, cap=memory_cap, kind="full", what="Krylov basis")
    tolerance = max(1e-8, 100 * torch.finfo(kernel.dtype).eps) if tolerance is None else tolerance

    def random(width: int) -> Tensor:
        return torch.randn(m, width, generator=generator, dtype=torch.float64).to(kernel.device)

    basis = torch.linalg.qr(random(min(block_size, limit))).Q
    images = kernel @ basis  # Theta times the basis
    while True:
        small = basis.T @ images
        values, coordinates = torch.linalg.eigh((small + small.T) / 2)
        values, coordinates = values.flip(0)[:k], coordinates.flip(1)[:, :k]
        vectors = basis @ coordinates
        residuals = (images @ coordinates - vectors * values).norm(dim=0)
        n_products = basis.shape[1]
        if n_products >= k and bool((residuals <= tolerance * values[0].abs()).all()):
            return TopEigenpairs(values, vectors, residuals, n_products)
        if n_products == limit:
            raise KernelError(
                f"after {n_products} products the largest residual of {k} eigenpairs is "
                f"{float(residuals.max() / values[0].abs()):.1e} of the largest eigenvalue, expected at most "
                f"{tolerance:.1e}: allow more products or a larger tolerance, or ask for fewer"
            )
        width = min(block_size, limit - n_products)
        block = _orthonormal(images[:, -width:], basis, random(width))
        basis, images = torch.cat([basis, block], dim=1), torch.cat([images, kernel @ block], dim=1)


def _orthonormal(
    block: Float[Tensor, "m b"], basis: Float[Tensor, "m s"], instead: Float[Tensor, "m b"]
) -> Float[Tensor, "m b"]:
    """The block's directions outside the basis; a random one for each that has none, as in an invariant subspace."""
    scale = float(block.norm())
    for _ in range(2):
        block = block - basis @ (basis.T @ block)
    triangle = torch.linalg.qr(block)
    is_weak = triangle.R.diagonal().abs() <= WEAK * scale
    block = torch.where(is_weak, instead, triangle.Q)
    for _ in range(2):
        block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
    return block
