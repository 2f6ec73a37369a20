"""Scores read off a kernel's eigenvalues and eigenvectors."""

from jaxtyping import Float
from torch import Tensor


def effective_rank(eigenvalues: Float[Tensor, " m"]) -> float:
    """`exp(-sum p_i log p_i)` with `p_i = lambda_i / trace` (Roy and Vetterli, 2007); 0 for a zero kernel.

    Eigenvalues at or below 0, which rounding leaves, carry no weight.
    """
    positive = eigenvalues[eigenvalues > 0]
    if positive.numel() == 0:
        return 0.0
    weights = positive / positive.sum()
    weights = weights[weights > 0]
    return float((-(weights * weights.log()).sum()).exp())


def label_energies(eigenvectors: Float[Tensor, "m r"], targets: Float[Tensor, "n c"]) -> Float[Tensor, "r q"]:
    """Share of the label energy `|H Y|^2` on each eigenvector; with all m vectors the entries sum to 1.

    For `m = n`, `q = c`: entry `(i, j)` is `(u_i . y_j)^2 / |H Y|^2`, so rows sum to the share of eigenvector i
    and the entries are those of the kernel `K (x) I_c`. For `m = n c` (full kernel, rows sample-major) `q = 1`.
    Zero where all labels are equal.
    """
    labels = (targets - targets.mean(0)).to(eigenvectors.dtype)
    columns = labels if eigenvectors.shape[0] == labels.shape[0] else labels.reshape(-1, 1)
    total = float(labels.square().sum())
    return (eigenvectors.T @ columns).square() / (total if total > 0 else 1.0)


def label_energy(eigenvectors: Float[Tensor, "m r"], targets: Float[Tensor, "n c"], k: int) -> float:
    """Share of the centred labels that lies in the span of the first k eigenvectors."""
    return float(label_energies(eigenvectors[:, :k], targets).sum())
