"""Scores of kernel ridge regression on the labels, in closed form: one eigen-decomposition each.

`kernel` is (n, n), shared by all classes, or the full tangent kernel (n c, n c), rows sample-major, with classes 0 to
c - 1. The labels are one-hot, Y, for a full kernel flattened. Squared errors are summed over classes. All raise
ScoreError for input that is not so, also where `K + ridge I` is singular in float64, and OneClass for one class.
"""

import math

import numpy as np
from numpy.typing import NDArray

from mr_core.errors import ScoreError
from mr_core.scores.arrays import Array, LabelledKernel, Matrix, as_labelled_kernel, as_square
from mr_core.scores.spectral import eigenpairs

UNIT_ROUNDOFF = 1.1e-16  # of float64


def leave_one_out_error(kernel: Array, labels: Array, ridge: float) -> float:
    """Mean squared error on each sample of the regression on all others: at least 0, lower is better.

    `e_i = [A^-1 Y]_i / [A^-1]_ii` with `A = K + ridge I` (Allen, 1974, for linear ridge regression); for a full kernel
    `[A^-1]_ii^-1 [A^-1 y]_i` with the c x c block of sample i. Exact, not an approximation. Predicting 0 has the
    error 1. `ridge` is at least 0, in units of the kernel. Memory: three times the kernel.
    """
    task = as_labelled_kernel(kernel, labels)
    values, vectors = eigenpairs(task.kernel)
    inverse = _inverse(values, ridge)
    rows = vectors.reshape(task.n_samples, -1, len(values))
    blocks = (rows * inverse) @ rows.transpose(0, 2, 1)
    weights = vectors @ (inverse[:, None] * (vectors.T @ task.columns))
    errors = np.linalg.solve(blocks, weights.reshape(*rows.shape[:2], -1))
    return float((errors**2).sum()) / task.n_samples


def gcv_error(kernel: Array, labels: Array, ridge: float) -> float:
    """Generalised cross-validation error: at least 0, lower is better.

    `(1/n) |A^-1 Y|^2 / [(1/m) tr A^-1]^2` with `A = K + ridge I` of m rows (Golub, Heath and Wahba, 1979; on tangent
    kernels Wei et al., 2022, arXiv:2203.06176): leave-one-out with each `[A^-1]_ii` replaced by their mean.
    `ridge` is at least 0, in units of the kernel.
    """
    task = as_labelled_kernel(kernel, labels)
    values, vectors = eigenpairs(task.kernel)
    inverse = _inverse(values, ridge)
    residual = inverse[:, None] * (vectors.T @ task.columns)
    return float((residual**2).sum()) / task.n_samples / float(inverse.mean()) ** 2


def kare(kernel: Array, labels: Array, ridge: float) -> float:
    """Kernel alignment risk estimator of the test error: at least 0, lower is better.

    `[(1/m) y^T (K/m + ridge I)^-2 y] / [(1/m) tr (K/m + ridge I)^-1]^2`, summed over the columns y of Y, m the kernel's
    rows (Jacot et al., 2020, arXiv:2006.09796). `ridge`, the paper's lambda, is at least 0, in units of `K/m`. The
    value is that of `gcv_error` at the ridge `m lambda`; for a full kernel 1/c of it, each output being an observation.
    """
    task = as_labelled_kernel(kernel, labels)
    m = len(task.kernel)
    values, vectors = eigenpairs(task.kernel)
    inverse = _inverse(values / m, ridge)
    residual = inverse[:, None] * (vectors.T @ task.columns)
    return float((residual**2).sum()) / m / float(inverse.mean()) ** 2


def kernel_regression_accuracy(kernel: Array, labels: Array, ridge: float, *, seed: int = 0) -> float:
    """Accuracy on one half of the samples of the regression on the other: in [0, 1], higher is better.

    `argmax K_tf (K_ff + ridge I)^-1 Y_f`: the tangent kernel's stand-in for training (as in Mohamadi et al., 2022,
    arXiv:2206.12543). Of each class the larger half is fitted. Which samples these are depends on `seed` and on the
    kernel's entries, not on the order of the samples nor on the names of the classes; duplicates may be parted. For a
    prompt an (n, n) kernel overestimates, since outputs share its parameters: take the full one. `ridge` is at
    least 0, in units of the kernel. ScoreError where every class has one sample, so that none is left to judge.
    """
    task = as_labelled_kernel(kernel, labels)
    is_fitted = _fitted_half(task, seed)
    if is_fitted.all():
        raise ScoreError("every class has one sample; a class with two or more was expected, to judge the regression")
    rows = np.repeat(is_fitted, len(task.kernel) // task.n_samples)
    values, vectors = eigenpairs(task.kernel[np.ix_(rows, rows)])
    weights = vectors @ (_inverse(values, ridge)[:, None] * (vectors.T @ task.columns[rows]))
    logits = (task.kernel[np.ix_(~rows, rows)] @ weights).reshape(int((~is_fitted).sum()), -1)
    return float((logits.argmax(1) == task.classes[~is_fitted]).mean())


def mean_eigenvalue(kernel: Array) -> float:
    """The unit in which a ridge means the same for kernels of any scale."""
    matrix = as_square(kernel)
    return float(np.trace(matrix)) / len(matrix)


def _inverse(values: Matrix, ridge: float) -> Matrix:
    """Eigenvalues of `(K + ridge I)^-1`."""
    if not 0 <= ridge < math.inf:
        raise ScoreError(f"the ridge is {ridge}; a finite number of at least 0 was expected")
    shifted = values + ridge
    largest, smallest = float(shifted.max()), float(shifted.min())
    if not smallest > max(len(values) * UNIT_ROUNDOFF * largest, 0.0):
        raise ScoreError(
            f"the kernel's smallest eigenvalue and the ridge add up to {smallest:.3e}, which float64 does not resolve "
            f"beside {largest:.3e}; a larger ridge was expected"
        )
    return np.asarray(1 / shifted)


def _fitted_half(task: LabelledKernel, seed: int) -> NDArray[np.bool_]:
    """Which samples are fitted: half of each class, drawn from an order that the kernel's entries give."""
    n = task.n_samples
    squares = np.sort(task.kernel.reshape(n, -1) ** 2, axis=1)  # sorted: a sum that the order of samples cannot round
    order = np.argsort(squares.sum(1), kind="stable")
    is_fitted = np.zeros(n, dtype=np.bool_)
    for label in np.unique(task.classes):
        members = order[task.classes[order] == label]
        drawn = np.random.Generator(np.random.PCG64(seed)).permutation(len(members))
        is_fitted[members[drawn[: (len(members) + 1) // 2]]] = True
    return is_fitted
