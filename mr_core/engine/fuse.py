"""Frozen convolutions as single operations: padding and the clamp after them are part of the convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mr_core.engine.sub_pixel import SubPixelGradient

FEW_CHANNELS = 4  # up to here oneDNN's gradient of a strided convolution is the slower one
TOLERANCE = 1e-5  # largest difference of a fused convolution from its parts, relative to the largest value


class Clamp(NamedTuple):
    """What follows a convolution: ReLU, or a clamp to an interval as ReLU6 is."""

    name: str  # as oneDNN calls it
    low: float
    high: float


class _Place(NamedTuple):
    """A convolution of the model, the shapes it works on, and the activation that alone reads its output."""

    convolution: nn.Conv2d
    inputs: torch.Size
    outputs: torch.Size
    activation: nn.Module | None


def fuse_convolutions(model: nn.Module, run: Callable[[], object]) -> int:
    """Replace, in place, frozen convolutions that oneDNN can do in fewer passes over memory; return how many.

    Two things are taken in. A ReLU or ReLU6 that reads the convolution's output: applied as each value is written,
    and the one tensor kept for backward is the result. Uneven "same" padding (one more row below than above, as
    TensorFlow pads): the kernel gets a row and a column of zeros instead of the image, so nothing is copied.
    The gradient to images of few channels takes `SubPixelGradient`. Each is compared with its parts on random input
    first. `run` makes one forward pass at the size in use; at another size, in another precision or on another
    device the parts themselves run.
    """
    if not _is_available():
        return 0
    parents = {child: (parent, name) for parent in model.modules() for name, child in parent.named_children()}
    fused = 0
    for place in _observe(model, run):
        replacement = _fused(place)
        if replacement is None:
            continue
        parent, name = parents[place.convolution]
        setattr(parent, name, replacement)
        if place.activation is not None:
            parent, name = parents[place.activation]
            setattr(parent, name, nn.Identity())
        fused += 1
    return fused


class FusedConvolution(nn.Module):
    """A frozen convolution with its padding and its clamp. Input `(n, c, h, w)`; plain parts where it cannot fuse."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        convolution: nn.Conv2d,
        clamp: Clamp,
        *,
        weight: Tensor,
        padding: tuple[int, int],
        size: tuple[int, int],
        plain: nn.Module,
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.padding = padding
        self.stride = _pair(convolution.stride)
        self.dilation = _pair(convolution.dilation)
        self.groups = convolution.groups
        self.size = size
        self.plain = plain
        self.gradient_to_input = _sub_pixel_gradient(self, weight)
        bias = weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias.detach()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.dtype != torch.float32 or inputs.device.type != "cpu" or inputs.shape[-2:] != self.size:
            return self.plain(inputs)  # type: ignore[no-any-return]
        return _ConvolutionThenClamp.apply(inputs, self.weight, self.bias, self)  # type: ignore[no-any-return, no-untyped-call]


class _ConvolutionThenClamp(torch.autograd.Function):
    """oneDNN's convolution with the clamp as its post-operation; the weights are frozen: only inputs get gradients."""

    @staticmethod
    def forward(inputs: Tensor, weight: Tensor, bias: Tensor, module: FusedConvolution) -> Tensor:
        clamp = module.clamp
        bounds = [clamp.low, clamp.high] if clamp.name == "hardtanh" else []
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            inputs, weight, bias, module.padding, module.stride, module.dilation, module.groups, clamp.name, bounds, ""
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, weight, _, ctx.module = inputs
        ctx.save_for_backward(images, weight, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        images, weight, output = ctx.saved_tensors
        module, clamp = ctx.module, ctx.module.clamp
        if clamp.name == "hardtanh":
            gradient = torch.ops.aten.hardtanh_backward(gradient, output, clamp.low, clamp.high)
        elif clamp.name == "relu":
            gradient = torch.ops.aten.threshold_backward(gradient, output, 0.0)
        if module.gradient_to_input is not None:
            return module.gradient_to_input(gradient, images.shape[-2:]), None, None, None
        settings = (module.stride, module.padding, module.dilation, False, (0, 0), module.groups)
        wanted, _, _ = torch.ops.aten.convolution_backward(
            gradient, images, weight, None, *settings, (True, False, False)
        )
        return wanted, None, None, None

    @staticmethod
    def vmap(_: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
        """One convolution over all samples of the vmap: its dimension joins the batch."""
        inputs, weight, bias, module = arguments
        inputs = inputs.movedim(in_dims[0], 0)
        flat = _ConvolutionThenClamp.apply(inputs.flatten(0, 1), weight, bias, module)  # type: ignore[no-untyped-call]
        return flat.view(*inputs.shape[:2], *flat.shape[1:]), 0


def _sub_pixel_gradient(module: FusedConvolution, weight: Tensor) -> SubPixelGradient | None:
    """For square strided convolutions of images; None leaves the gradient to oneDNN."""
    square = len({*module.stride}) == len({*module.padding}) == len({*weight.shape[2:]}) == 1
    plain = module.groups == 1 and module.dilation == (1, 1)
    if not (square and plain and module.stride[0] > 1 and weight.shape[1] <= FEW_CHANNELS):
        return None
    return SubPixelGradient.of(weight, stride=module.stride[0], padding=module.padding[0])


def _is_available() -> bool:
    return bool(torch.backends.mkldnn.is_available()) and hasattr(torch.ops.mkldnn, "_convolution_pointwise")  # type: ignore[no-untyped-call]


def _observe(model: nn.Module, run: Callable[[], object]) -> list[_Place]:
    """Every convolution that runs once, in the order seen; its activation is handed the very tensor it returned."""
    places: list[_Place] = []
    produced: dict[int, tuple[int, Tensor, int]] = {}  # place, tensor (kept alive, so its id stays its own), version

    def after_convolution(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        produced[id(output)] = (len(places), output, output._version)
        places.append(_Place(module, inputs[0].shape, output.shape, None))

    def before_activation(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        index, output, version = produced.get(id(inputs[0]), (-1, inputs[0], -1))
        if output._version == version:  # nothing was added to it in place
            places[index] = places[index]._replace(activation=module)

    hooks = [
        module.register_forward_hook(after_convolution)
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(before_activation)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.ReLU | nn.Hardtanh)
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    convolutions = [place.convolution for place in places]
    activations = [place.activation for place in places]
    return [
        place
        for place in places
        if convolutions.count(place.convolution) == 1
        and (place.activation is None or activations.count(place.activation) == 1)
    ]


def _fused(place: _Place) -> FusedConvolution | None:
    """The fused form, where there is something to fuse and it agrees with its parts."""
    convolution = place.convolution
    padding = _paddings(place)
    if convolution.padding_mode != "zeros" or padding is None:
        return None
    (before, after) = padding
    uneven = before != after
    if place.activation is None and not uneven:
        return None
    weight = convolution.weight.detach()
    if uneven:
        weight = functional.pad(weight, (after[1] - before[1], 0, after[0] - before[0], 0))
    plain = nn.Sequential(convolution, place.activation) if place.activation is not None else convolution
    fused = FusedConvolution(
        convolution,
        _clamp_of(place.activation),
        weight=weight.contiguous(memory_format=torch.channels_last),
        padding=after,
        size=(place.inputs[-2], place.inputs[-1]),
        plain=plain,
    )
    return fused if _agrees(fused, plain, place) else None


def _agrees(fused: FusedConvolution, plain: nn.Module, place: _Place) -> bool:
    """Whether outputs and gradients to the input are those of the parts, on random input."""
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, *place.inputs[1:], generator=generator).contiguous(memory_format=torch.channels_last)
    cotangent = torch.randn(2, *place.outputs[1:], generator=generator)
    results = []
    for module in (plain, fused):
        leaf = sample.clone().requires_grad_()
        with torch.enable_grad():
            output = module(leaf)
            if output.shape != cotangent.shape:
                return False
            (gradient,) = torch.autograd.grad(output, leaf, cotangent)
        results.append((output.detach(), gradient))
    return all(
        bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
        for expected, found in zip(*results, strict=True)
    )


def _paddings(place: _Place) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Rows and columns of zeros before and after the input, read off the shapes; None where they fit no known rule.

    A convolution that states its padding pads evenly. One that states none but returns more than it could without
    pads by itself: as TensorFlow's "same" does, half before and the rest after.
    """
    convolution = place.convolution
    if isinstance(convolution.padding, str):
        return None
    before, after = [], []
    for axis in (0, 1):
        stated = _pair(convolution.padding)[axis]
        stride, reach = _pair(convolution.stride)[axis], _pair(convolution.dilation)[axis]
        kernel = reach * (_pair(convolution.kernel_size)[axis] - 1) + 1
        total = max(0, (place.outputs[2 + axis] - 1) * stride + kernel - place.inputs[2 + axis])
        if stated:
            before.append(stated)
            after.append(stated)
        else:
            before.append(total // 2)
            after.append(total - total // 2)
    if any(
        b != a and (a - b != 1 or _pair(convolution.dilation) != (1, 1)) for b, a in zip(before, after, strict=True)
    ):
        return None
    return (before[0], before[1]), (after[0], after[1])


def _clamp_of(activation: nn.Module | None) -> Clamp:
    if isinstance(activation, nn.Hardtanh):
        return Clamp("hardtanh", activation.min_val, activation.max_val)
    return Clamp("none" if activation is None else "relu", 0.0, float("inf"))


def _pair(value: Any) -> tuple[int, int]:
    return tuple(value)
