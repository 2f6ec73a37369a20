"""KITE: features that separate the classes and do not resemble those of random weights."""

import numpy as np

from mr_core.errors import ScoreError
from mr_core.scores.alignment import centred_kernel_alignment, kernel_target_alignment
from mr_core.scores.arrays import Array, Matrix, as_features, as_labels, class_indices, one_hot


def kite(features: Array, labels: Array, random_features: Array) -> float:
    """`CKA(K, Y Y^T) / CKA(K, K_random)`, at least 0: higher is better (Guo, 2024, arXiv:2405.01603).

    `features` F is (n, d), `labels` (n,) and `random_features` (n, r): the same samples through the same architecture
    with random weights, here a `random:` backbone. `K = F F^T` and likewise `K_random`. That the kernels are linear and
    the random weights of the same architecture is our reading: of the paper the formula is certain, and that it reports
    little influence of the kernel and of the draw. For other kernels: `kernel_target_alignment` divided by
    `centred_kernel_alignment`.

    ScoreError for input that is not so or where a kernel is constant and there is no ratio; OneClass for one class.
    """
    matrix, random = as_features(features), as_features(random_features, "random_features")
    if len(random) != len(matrix):
        raise ScoreError(f"random_features of {len(random)} samples; the {len(matrix)} of features were expected")
    targets = one_hot(class_indices(as_labels(labels, len(matrix))))
    kernel = _linear_kernel(matrix)
    similarity = centred_kernel_alignment(kernel, _linear_kernel(random))
    if not similarity > 0:
        raise ScoreError(
            "features and random_features have no alignment to divide by; features that vary were expected"
        )
    return kernel_target_alignment(kernel, targets) / similarity


def _linear_kernel(features: Matrix) -> Matrix:
    """`F F^T` of features scaled to at most 1, which no alignment sees."""
    scaled = features / max(float(np.abs(features).max()), np.finfo(np.float64).tiny)
    return np.asarray(scaled @ scaled.T)
