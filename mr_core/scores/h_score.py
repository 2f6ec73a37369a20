"""H-score: how far class means lie apart, measured against the spread of the features."""

from typing import Literal

import numpy as np

from mr_core.errors import ScoreError
from mr_core.scores.arrays import Array, Matrix, as_features, as_labels, class_indices, one_hot

Covariance = Literal["auto", "sample", "shrunk"]


def h_score(features: Array, labels: Array, *, covariance: Covariance = "auto") -> float:
    """`tr(cov(F)^-1 cov(E[F | y]))`, from 0 to the number of classes less 1 (`sample`): higher is better.

    Bao et al., An Information-Theoretic Approach to Transferability in Task Transfer Learning, ICIP 2019. `features` F
    is (n, d), `labels` (n,). `sample` takes the samples' covariance and its pseudo-inverse. Where `n <= d` that is in
    general `classes - 1` whatever the labels, so `shrunk` follows Ibrahim et al., 2021, arXiv:2110.06893, instead:
    `tr(cov_a(F)^-1 (1 - a) cov(E[F | y]))`, with `cov_a = (1 - a) cov(F) + a tr(cov(F))/d I` and a by Ledoit and Wolf,
    2004. As in the published code, `cov(E[F | y])` is divided by `n - 1` and `cov_a` by n. `auto` is `sample` where
    `n > d` and `shrunk` otherwise: compare sources whose widths lie on both sides of n under `shrunk`.

    0 where all features are equal; ScoreError for input that is not so, OneClass for one class. Cost: one singular
    value decomposition.
    """
    if covariance not in ("auto", "sample", "shrunk"):
        raise ScoreError(f"the covariance is {covariance!r}; 'auto', 'sample' or 'shrunk' was expected")
    matrix = as_features(features)
    n, d = matrix.shape
    indices = class_indices(as_labels(labels, n))
    centred = matrix - matrix.mean(0)
    size = float(np.abs(centred).max())
    if size <= n * np.finfo(np.float64).eps * float(np.abs(matrix).max()):  # what rounding leaves of equal features
        return 0.0
    centred = centred / size  # the score does not depend on scale, its fourth powers do
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    kept = singular > max(n, d) * np.finfo(np.float64).eps * singular[0]
    left, variances = left[:, kept], singular[kept] ** 2 / n
    members = one_hot(indices)
    means = members.T @ left / members.sum(0)[:, None]
    between = (members.sum(0)[:, None] * means**2).sum(0)  # of each direction, as a share of its variance
    if covariance == "sample" or (covariance == "auto" and n > d):
        return float(between.sum())
    shrinkage, mean_variance = _ledoit_wolf(centred, variances)
    shrunk = (1 - shrinkage) * variances + shrinkage * mean_variance
    return float(((1 - shrinkage) * variances * between / shrunk).sum() * n / (n - 1))


def _ledoit_wolf(centred: Matrix, variances: Matrix) -> tuple[float, float]:
    """The shrinkage a in [0, 1], and the mean variance of a feature (Ledoit and Wolf, 2004, in sklearn's form)."""
    n, d = centred.shape
    mean = float(variances.sum()) / d
    squared = float((variances**2).sum())
    distance = squared - d * mean**2
    noise = (float(((centred**2).sum(1) ** 2).sum()) / n - squared) / n
    return (min(max(noise, 0.0), distance) / distance if distance > 0 else 0.0), mean
