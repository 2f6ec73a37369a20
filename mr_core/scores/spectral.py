"""Scores read off a kernel's eigenvalues and eigenvectors."""

import numpy as np

from mr_core.errors import ScoreError
from mr_core.scores.arrays import Array, Matrix, as_numbers

INDEFINITE = 1e-5  # times the largest eigenvalue: negative ones up to it may be the rounding of float32


def eigenpairs(kernel: Matrix) -> tuple[Matrix, Matrix]:
    """Eigenvalues of a symmetric matrix, descending, and eigenvectors as columns.

    ScoreError where one is negative beyond what float32 leaves: the matrix then is no kernel. None is clipped.
    """
    values, vectors = np.linalg.eigh(kernel)
    if values[0] < -INDEFINITE * max(values[-1], 0.0):
        raise ScoreError(
            f"the kernel has the eigenvalue {values[0]:.3e} beside a largest one of {values[-1]:.3e}; a positive "
            "semi-definite one was expected"
        )
    return values[::-1], vectors[:, ::-1]


def effective_rank(eigenvalues: Array) -> float:
    """`exp(-sum p_i log p_i)` with `p_i = lambda_i / trace` (Roy and Vetterli, 2007); 0 for a zero kernel.

    From 1 to the number m of `eigenvalues`, (m,), in any order: neither high nor low is better. Eigenvalues at or below
    0, which rounding leaves, carry no weight. ScoreError for input that is not so, here and below.
    """
    weights = _positive(eigenvalues)
    weights = weights / (weights.sum() or 1.0)
    weights = weights[weights > 0]
    return float(np.exp(-(weights * np.log(weights)).sum())) if len(weights) else 0.0


def participation_ratio(eigenvalues: Array) -> float:
    """`(sum lambda)^2 / sum lambda^2`, the trace of K squared over that of K^2; 0 for a zero kernel.

    From 1 to m, and at most `effective_rank` (Rényi's entropy of order 2 in place of Shannon's; Gao et al., A Theory of
    Multineuronal Dimensionality, Dynamics and Measurement, 2017).
    """
    values = _positive(eigenvalues)
    return float(values.sum() ** 2 / (values**2).sum()) if len(values) else 0.0


def stable_rank(eigenvalues: Array) -> float:
    """`trace K / lambda_max`, which is `|J|_F^2 / |J|_2^2` of the Jacobian with `K = J J^T`; 0 for a zero kernel.

    From 1 to m, and at most `participation_ratio` (Rudelson and Vershynin, 2007, arXiv:math/0503442).
    """
    return float(_positive(eigenvalues).sum())


def label_energies(eigenvectors: Array, targets: Array) -> Matrix:
    """`(r, q)`: share of the label energy `|H Y|^2` on each eigenvector; with all m vectors the entries sum to 1.

    `eigenvectors` is (m, r), orthonormal columns, and `targets` (n, c). For `m = n`, `q = c`: entry `(i, j)` is
    `(u_i . y_j)^2 / |H Y|^2`, so rows sum to the share of eigenvector i and the entries are those of the kernel
    `K (x) I_c`. For `m = n c` (full kernel, rows sample-major) `q = 1`. Zero where all labels are equal.
    """
    vectors = as_numbers(eigenvectors, "eigenvectors", axes=("rows", "eigenvectors"))
    one_hot = as_numbers(targets, "targets", axes=("samples", "classes"))
    if len(vectors) not in (len(one_hot), one_hot.size):
        raise ScoreError(
            f"eigenvectors of {len(vectors)} entries belong neither to {len(one_hot)} samples nor to "
            f"{len(one_hot)} samples x {one_hot.shape[1]} outputs"
        )
    labels = one_hot - one_hot.mean(0)
    columns = labels if len(vectors) == len(labels) else labels.reshape(-1, 1)
    total = float((labels**2).sum())
    return np.asarray((vectors.T @ columns) ** 2 / (total if total > 0 else 1.0))


def label_energy(eigenvectors: Array, targets: Array, k: int) -> float:
    """Share of the centred labels that lies in the span of the first k eigenvectors, in [0, 1]: higher is better.

    Those of a kernel's largest eigenvalues, in descending order, are what gradient descent fits first (Arora et al.,
    2019, arXiv:1901.08584). ScoreError where there are no k eigenvectors.
    """
    energies = label_energies(eigenvectors, targets)
    if not 1 <= k <= len(energies):
        raise ScoreError(f"k is {k}; 1 to {len(energies)}, the number of eigenvectors, was expected")
    return float(energies[:k].sum())


def _positive(eigenvalues: Array) -> Matrix:
    """The eigenvalues above 0, in units of the largest."""
    values = as_numbers(eigenvalues, "eigenvalues", axes=("eigenvalues",))
    values = values[values > 0]
    return values / values.max() if len(values) else values
