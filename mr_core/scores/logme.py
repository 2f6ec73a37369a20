"""LogME: evidence of a Bayesian linear model of the labels on frozen features."""

from typing import Literal

import numpy as np

from mr_core.errors import ScoreError
from mr_core.scores.arrays import Array, Matrix, as_features, as_labels, class_indices, one_hot

EPSILON = 1e-5  # the published code's: keeps alpha and beta finite where features explain the labels entirely
MAX_STEPS = 11
TOLERANCE = 1e-3  # of alpha / beta, relative
PUBLISHED_CUT = 1e-10  # singular values that the published code drops, where n > d

Form = Literal["evidence", "published"]


def logme(features: Array, labels: Array, *, form: Form = "evidence") -> float:
    """Log maximum evidence for each sample, averaged over classes: any size and sign, higher is better.

    You et al., ICML 2021, arXiv:2102.11005, by the fixed-point iteration of You et al., JMLR 2022, arXiv:2110.10545.
    `features` F is (n, d), `labels` (n,). Each class is regressed one against the rest, `y = F w + noise`, with prior
    precision alpha and noise precision beta that maximise

        evidence = [d ln alpha + n ln beta - sum_{i <= d} ln(alpha + beta sigma_i)
                    - beta |F m - y|^2 - alpha |m|^2 - n ln 2 pi] / (2 n)

    with m the posterior mean and sigma the eigenvalues of `F^T F`, d of them, 0 beyond its rank. The code published
    with the second paper stops the sum at the `k = min(n, d)` singular values that F has, yet counts `d ln alpha` in
    full: where `n < d` its value is too high by `(d - k) ln alpha / (2 n)`. `form="published"` is that code to the
    letter; `form="evidence"` restores the missing `(d - k) ln alpha`. They agree where the features have full column
    rank. On the reference of 40 samples in 64 dimensions published gives 1.9955 and evidence -0.0683; the first paper's
    code, which takes all d eigenvalues and stops iterating earlier, gives -0.0685. As published, wide features gain by
    their width alone, and shuffled labels may score above the true ones.

    The iteration starts at `alpha = beta = 1` and ends after 11 steps at most, as published: where `n <= d` and
    features are far above 100 in size it has not converged by then, so bring sources to one scale first. Classes
    without samples do not count (the published code averages over them). Cost: one singular value decomposition.
    ScoreError for input that is not so, or where there is no finite value (features of 0 as published, or of 1e12);
    OneClass for one class.
    """
    if form not in ("evidence", "published"):
        raise ScoreError(f"the form of LogME is {form!r}; 'evidence' or 'published' was expected")
    matrix = as_features(features)
    targets = one_hot(class_indices(as_labels(labels, len(matrix))))
    n, d = matrix.shape
    left, singular, _ = np.linalg.svd(matrix, full_matrices=False)
    if form == "evidence":
        kept = singular > max(n, d) * np.finfo(np.float64).eps * singular[0]
    else:
        kept = singular > (PUBLISHED_CUT if n > d else -1.0)
    left, sigma = left[:, kept], singular[kept] ** 2
    n_alpha = len(sigma) if form == "evidence" else d
    score = float(np.mean([_evidence(left, sigma, target, n_alpha) for target in targets.T]))
    if not np.isfinite(score):
        size = float(np.abs(matrix).max())
        raise ScoreError(f"LogME ({form}) is not finite for features of size {size:.3g}; others were expected")
    return score


def _evidence(left: Matrix, sigma: Matrix, target: Matrix, n_alpha: int) -> float:
    """Of one class, for each sample; `n_alpha` is how often ln alpha is counted beside the sum over `sigma`."""
    n = len(target)
    x2 = (left.T @ target) ** 2
    outside = max(float(target @ target - x2.sum()), 0.0)
    alpha = beta = 1.0
    for _ in range(MAX_STEPS):
        t = alpha / beta
        gamma = float((sigma / (sigma + t)).sum())
        freedom = float((t / (sigma + t)).sum()) + n - len(sigma)  # n - gamma, which rounding could make 0
        m2 = float((sigma * x2 / (t + sigma) ** 2).sum())
        residual2 = float((x2 * (t / (t + sigma)) ** 2).sum()) + outside
        alpha, beta = gamma / (m2 + EPSILON), freedom / (residual2 + EPSILON)
        if beta == 0:  # underflow: features that large fit any labels
            return np.inf
        if alpha == 0 or abs(alpha / beta - t) <= TOLERANCE * t:
            break
    if alpha > 0:
        prior = n_alpha * float(np.log(alpha)) - float(np.log(alpha + beta * sigma).sum())
    else:  # features of 0: the logarithms cancel where as many are added as taken off
        prior = 0.0 if n_alpha == len(sigma) else -np.inf
    return (prior + n * float(np.log(beta / (2 * np.pi))) - beta * residual2 - alpha * m2) / (2 * n)
