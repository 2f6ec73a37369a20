"""Float32 that is float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def whole_float32() -> Iterator[None]:
    """Within, convolutions on accelerators do not round to TF32's 10 bits, which torch lets cuDNN do; restored after.

    Small steps drown in that rounding: finite differences of a loss, and the comparison of a fast form with its stock
    model. It holds for the whole process.
    """
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
