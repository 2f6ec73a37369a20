"""The kernel of a layer with few positions, position by position: no gradient of its weight is ever formed."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.ntk.kernel import Kind

BLOCK_BYTES = 64 * 2**20

Overlaps = Callable[[slice, slice], Float[Tensor, "a l b l"]]


def accumulate_positions(
    gram: Float[Tensor, "m m"], behind: Float[Tensor, "n k o l"], overlaps: Overlaps, *, kind: Kind
) -> None:
    """Add the kernel of a layer's weight to the lower half of the float64 `gram`, in place.

    `behind` is the gradient at the layer's output, and `overlaps` the inner products of what the positions of some
    samples see with what those of others do, in float64. Entry (a c, b d) is
    `sum_pq <behind[a, c, :, p], behind[b, d, :, q]> overlaps[a, p, b, q]` (Novak et al., 2022, arXiv:2206.08720,
    section 3.2: structured derivatives), summed over p first, which costs `k o l^2 + k^2 o l` a pair of samples
    where the weight's own gradients would cost `k^2 o f`. Memory: blocks of 64 MiB.
    """
    n, k, width, n_positions = behind.shape
    side = max(1, int((BLOCK_BYTES / (8 * k * width * n_positions)) ** 0.5))
    for first in range(0, n, side):
        a = slice(first, min(first + side, n))
        left = behind[a].double().flatten(1, 2)  # (a, k o, l)
        for start in range(0, a.stop, side):
            b = slice(start, min(start + side, n))
            seen = overlaps(a, b).flatten(2)  # (a, l, b l)
            summed = (left @ seen).view(len(left), k, width, b.stop - b.start, n_positions)
            right = behind[b].double()
            if kind == "trace":
                gram[a, b] += torch.einsum("ckobq,bkoq->cb", summed, right)
                continue
            by_sample = summed.permute(3, 0, 1, 2, 4).flatten(1, 2).flatten(2)  # (b, a k, o l)
            block = torch.bmm(by_sample, right.flatten(2).transpose(1, 2))  # (b, a k, k)
            rows, columns = slice(a.start * k, a.stop * k), slice(b.start * k, b.stop * k)
            gram[rows, columns] += block.permute(1, 0, 2).flatten(1)
