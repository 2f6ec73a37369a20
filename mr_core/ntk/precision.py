"""The arithmetic in which Jacobians are taken."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def exact_arithmetic(module: nn.Module) -> Iterator[None]:
    """Eval mode, no autocast, no TF32, the plain attention kernel (the fused ones lack vmap rules); restored after.

    Each submodule's own training flag comes back, so a frozen part of a model in training stays as it was.
    """
    training = [part for part in module.modules() if part.training]
    matmul = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.allow_tf32
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    device_type = next((tensor.device.type for tensor in module.parameters()), "cpu")
    try:
        for part in training:
            part.training = False
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.autocast(device_type, enabled=False), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        torch.backends.cudnn.allow_tf32 = cudnn
        torch.set_float32_matmul_precision(matmul)
        for part in training:
            part.training = True


def jacobian_dtype(module: nn.Module) -> torch.dtype:
    """The widest floating dtype of the module's parameters and buffers, float32 at least."""
    dtype = torch.float32
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
