"""Linear maps whose weights never change: packed once for the processor, in both directions."""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# Largest difference of a packed product from torch's own, relative to the largest value.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class FrozenLinear:
    """`x W^T + b` in float32 or bfloat16 for a weight that gets no gradient; `x` of any shape `(..., k)`.

    Packed, oneDNN reads the weight in the order its kernel wants, and the gradient to `x` takes a packed transpose,
    made at the first backward pass. Unpacked, torch's own product on the weight as it lies. Deep copies share both:
    they are derived from frozen weights and never written.
    """

    def __init__(
        self,
        weight: Float[Tensor, "m k"],
        bias: Float[Tensor, " m"] | None,
        *,
        dtype: torch.dtype = torch.float32,
        is_packed: bool,
    ) -> None:
        self.dtype = dtype
        self.is_packed = is_packed and can_pack(dtype)
        weight = weight.detach()
        bias = None if bias is None else bias.detach().to(dtype)
        if self.is_packed:
            self._product = _Packed(weight, bias, dtype)
        else:
            self._weight, self._bias = weight.to(dtype), bias

    def __call__(self, inputs: Float[Tensor, "*n k"]) -> Float[Tensor, "*n m"]:
        inputs = inputs.to(self.dtype)
        if self.is_packed:
            return _PackedLinear.apply(inputs, self._product)  # type: ignore[no-any-return, no-untyped-call]
        return functional.linear(inputs, self._weight, self._bias)

    def __deepcopy__(self, _: dict[int, Any]) -> FrozenLinear:
        return self


@cache
def gains_by_packing(dtype: torch.dtype) -> bool:
    """By the processor, so that a job's arithmetic is the same each time it runs on one.

    In bfloat16 always. In float32 torch's own product is MKL's: on Intel's processors it reaches the same rate
    (within 5 % of the packed one, either way), and packing holds the weights twice more; on others MKL keeps to
    slower kernels, and the packed product was twice as fast.
    """
    if dtype != torch.float32:
        return True
    try:
        return "GenuineIntel" not in Path("/proc/cpuinfo").read_text()
    except OSError:
        return True


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the packed product for `dtype` (the operators are private) and it is right."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    weight, bias, inputs = (torch.randn(shape, generator=generator) for shape in ((48, 32), (48,), (5, 32)))
    try:
        packed = _Packed(weight, bias.to(dtype), dtype)
        found = (packed(inputs.to(dtype)), packed.transposed(weight[:3, :1].expand(3, 48).to(dtype)))
    except (AttributeError, RuntimeError):  # NotImplementedError is a RuntimeError
        return False
    expected = (inputs @ weight.T + bias, weight[:3, :1].expand(3, 48) @ weight)
    return all(
        bool((a.float() - b).abs().max() <= TOLERANCE[dtype] * b.abs().max())
        for a, b in zip(found, expected, strict=True)
    )


class _Packed:
    """One direction of a packed product."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self._weight = weight  # as the stock model holds it: nothing is copied
        self._bias = bias
        self._dtype = dtype
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous())

    def __call__(self, inputs: Tensor) -> Tensor:
        return _product(inputs.contiguous(), self._packed, self._bias)

    @cached_property
    def transposed(self) -> _Packed:
        return _Packed(self._weight.T, None, self._dtype)


def _product(inputs: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(inputs, packed, bias, "none", [], "")  # type: ignore[no-any-return]


class _PackedLinear(torch.autograd.Function):
    """Differentiable as often as one likes: the gradient of a product is the product with the transpose."""

    @staticmethod
    def forward(inputs: Tensor, product: _Packed) -> Tensor:
        return product(inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        _, ctx.product = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _PackedLinear.apply(gradient, ctx.product.transposed), None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(_: Any, in_dims: tuple[Any, ...], inputs: Tensor, product: _Packed) -> tuple[Tensor, int]:
        """One product over all samples of the vmap: rows do not mix."""
        return _PackedLinear.apply(inputs.movedim(in_dims[0], 0), product), 0  # type: ignore[no-untyped-call]
