"""Which kernels are made of blocks, and of which. Torch-free: estimates count the parts.

A block is a stretch of samples. It stores the Jacobian rows of its own samples, and the diagnosis takes the products:
so each backward pass is made once, and what a block holds does not depend on the others. See docs/decisions/0015.
"""

from collections.abc import Sequence
from typing import Final, Literal

ROWS_IN_ONE_PROCESS: Final = 2500
ROWS_A_BLOCK: Final = 1500
BLOCK_BYTES: Final = 128 * 2**20
"""Of a block's rows, by which it is made smaller; but never smaller than a batch."""
BATCH_SAMPLES: Final = 16
"""Stretches are whole batches, so that a sample's rows are rounded as in any other division."""


def n_passes(kernel: Literal["full", "trace", "pseudo"], n_classes: int) -> int:
    """Backward passes a sample, each of which gives a row."""
    return 1 if kernel == "pseudo" else n_classes


def stretches(
    n_samples: int, *, passes: int, block_samples: int | None = None, bytes_a_sample: int = 0
) -> Sequence[range]:
    """The samples of each block, in order; none where the kernel is small enough for one process.

    `bytes_a_sample` is the size of a sample's rows, and counts where `block_samples` is not given.
    """
    if block_samples is None:
        if n_samples * passes <= ROWS_IN_ONE_PROCESS:
            return []
        n_blocks = -(-n_samples * passes // ROWS_A_BLOCK)
        size = -(-n_samples // n_blocks)
        size = -(-size // BATCH_SAMPLES) * BATCH_SAMPLES
        if bytes_a_sample:
            size = min(size, BLOCK_BYTES // bytes_a_sample // BATCH_SAMPLES * BATCH_SAMPLES)
        block_samples = max(BATCH_SAMPLES, size)
    return [range(start, min(start + block_samples, n_samples)) for start in range(0, n_samples, block_samples)]
