"""Kernels known without a Jacobian."""

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.errors import KernelError
from mr_core.ntk.kernel import KernelPart, Kind


def linear_head_kernel(features: Float[Tensor, "n d"], *, n_outputs: int, kind: Kind) -> KernelPart:
    """Kernel of weight and bias of `f = W phi + b`: `(F F^T + 1 1^T) (x) I_C`, in float64.

    The trace kernel and the pseudo kernel are both the factor `F F^T + 1 1^T`. KernelError naming the sample
    where a feature is not finite. Memory: n^2 + n d float64.
    """
    finite = features.isfinite().all(1)
    if not bool(finite.all()):
        sample = int((~finite).nonzero()[0])
        raise KernelError(f"the features of sample {sample} are not finite, so its kernel is undefined", sample=sample)
    wide = features.to(torch.float64)
    matrix = torch.addmm(torch.ones((), dtype=torch.float64, device=wide.device), wide, wide.T)
    matrix = (matrix + matrix.T) / 2
    return KernelPart(matrix, copies=n_outputs if kind == "full" else 1)
