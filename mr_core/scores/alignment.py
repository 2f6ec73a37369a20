"""How well a kernel's geometry agrees with the labels."""

from jaxtyping import Float
from torch import Tensor


def kernel_target_alignment(kernel: Float[Tensor, "m m"], targets: Float[Tensor, "n c"], *, copies: int = 1) -> float:
    """Centred kernel-target alignment, in [-1, 1] (Cristianini et al., 2001; centred as in Cortes et al., 2012).

    `<H K H, T> / (|H K H| |T|)` in Frobenius products, with `H = I - 1 1^T / n` and `T = H Y Y^T H` for an
    `(n, n)` kernel. For a full tangent kernel `(n c, n c)`, rows sample-major, the label vector is the
    flattened centred one-hot matrix `y = vec(H Y)`, `T = y y^T`, and samples are centred within each pair of
    outputs. `copies > 1` says that the kernel is `kernel (x) I_copies` with an `(n, n)` factor; nothing of the
    full size is then formed. 0 where the kernel or the labels are constant. Memory: one copy of the kernel.
    """
    n, c = targets.shape
    m = kernel.shape[0]
    if m not in (n, n * c):
        raise ValueError(f"a kernel of {m} rows belongs neither to {n} samples nor to {n} samples x {c} outputs")
    labels = (targets - targets.mean(0)).to(kernel.dtype)
    is_full = m != n or copies > 1
    blocks = kernel.view(n, m // n, n, m // n)
    centred = blocks - blocks.mean(0, keepdim=True)
    centred -= centred.mean(2, keepdim=True)
    columns = labels.reshape(m, 1) if m != n else labels
    inner = float((columns * (centred.view(m, m) @ columns)).sum())
    norm = float(centred.norm()) * copies**0.5
    target_norm = float(labels.square().sum()) if is_full else float((labels.T @ labels).norm())
    return inner / (norm * target_norm) if norm > 0 and target_norm > 0 else 0.0
