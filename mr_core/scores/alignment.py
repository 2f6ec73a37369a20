"""How well a kernel's geometry agrees with the labels, or with another kernel."""

import numpy as np

from mr_core.errors import ScoreError
from mr_core.scores.arrays import Array, Matrix, as_numbers, as_square


def kernel_target_alignment(kernel: Array, targets: Array, *, copies: int = 1) -> float:
    """Centred kernel-target alignment, in [-1, 1]: higher is better (Cristianini et al., 2001; Cortes et al., 2012).

    `<H K H, T> / (|H K H| |T|)` in Frobenius products, with `H = I - 1 1^T / n` and `T = H Y Y^T H` for an
    `(n, n)` kernel and one-hot `targets` Y, (n, c). For a full tangent kernel `(n c, n c)`, rows sample-major, the
    label vector is the flattened centred one-hot matrix `y = vec(H Y)`, `T = y y^T`, and samples are centred within
    each pair of outputs. `copies > 1` says that the kernel is `kernel (x) I_copies` with an `(n, n)` factor; nothing of
    the full size is then formed. 0 where the kernel or the labels are constant; ScoreError for input that is not so.
    Memory: one copy of the kernel, and one more where it is not float64.
    """
    matrix, one_hot = as_square(kernel), as_numbers(targets, "targets", axes=("samples", "classes"))
    (n, c), m = one_hot.shape, len(matrix)
    if m not in (n, n * c):
        raise ScoreError(f"a kernel of {m} rows belongs neither to {n} samples nor to {n} samples x {c} outputs")
    labels = one_hot - one_hot.mean(0)
    is_full = m != n or copies > 1
    centred = _centred(matrix, m // n)
    columns = labels.reshape(m, 1) if m != n else labels
    inner = float((columns * (centred @ columns)).sum())
    norm = _norm(centred, matrix) * copies**0.5
    target_norm = float((labels**2).sum()) if is_full else float(np.linalg.norm(labels.T @ labels))
    return inner / (norm * target_norm) if norm > 0 and target_norm > 0 else 0.0


def centred_kernel_alignment(kernel: Array, other: Array) -> float:
    """CKA of two (n, n) kernels of the same samples (Cortes et al., 2012; Kornblith et al., 2019, arXiv:1905.00414).

    `<H K H, H L H> / (|H K H| |H L H|)`: in [0, 1] where both are positive semi-definite, 1 where they are equal but
    for scale and offset. 0 where one is constant; ScoreError for input that is not so.
    """
    left, right = as_square(kernel), as_square(other, "other")
    if len(left) != len(right):
        raise ScoreError(f"kernels of {len(left)} and {len(right)} samples; as many in both were expected")
    centred, other_centred = _centred(left, 1), _centred(right, 1)
    norms = _norm(centred, left) * _norm(other_centred, right)
    return float((centred * other_centred).sum()) / norms if norms > 0 else 0.0


def _centred(kernel: Matrix, outputs: int) -> Matrix:
    """`H K H` over samples, for each pair of outputs."""
    n = len(kernel) // outputs
    blocks = kernel.reshape(n, outputs, n, outputs)
    centred = blocks - blocks.mean(0, keepdims=True)
    centred -= centred.mean(2, keepdims=True)
    return np.asarray(centred.reshape(kernel.shape))


def _norm(centred: Matrix, kernel: Matrix) -> float:
    """Frobenius norm of what centring leaves of the kernel; 0 where that is its rounding."""
    norm = float(np.linalg.norm(centred))
    return norm if norm > len(kernel) * np.finfo(np.float64).eps * float(np.linalg.norm(kernel)) else 0.0
