"""Linear and convolutional layers seen from outside: what goes in, what comes out, and what their gradients are of."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mr_core.sources.network import GaussianConvolution, GaussianLayer, GaussianLinear

_LINEAR = (nn.Linear, GaussianLinear)
_CONVOLUTIONS = (nn.Conv2d, GaussianConvolution)


@dataclass(frozen=True)
class Layer:
    """A module `z = a W x + b v`, W and v its weight and bias and (a, b) the `scales`, at each position of its output.

    A convolution's x are the patches that its positions see. `wants` tells which of weight and bias have a Jacobian.
    """

    name: str
    module: nn.Module
    scales: tuple[float, float]
    wants: tuple[bool, bool]

    @property
    def widths(self) -> tuple[int, int]:
        """Features in, as its weight sees them, and out."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight[0].numel(), len(weight)

    @property
    def parameter_names(self) -> list[str]:
        """Those that are wanted, as the whole module names them."""
        prefix = f"{self.name}." if self.name else ""
        return [f"{prefix}{name}" for name, wanted in zip(("weight", "bias"), self.wants, strict=True) if wanted]

    @property
    def n_parameters(self) -> int:
        """Of those that are wanted."""
        n_in, n_out = self.widths
        return n_out * (n_in * self.wants[0] + self.wants[1])

    def patches(self, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n l f"]:
        """What each position of the output sees; a view where the layer is linear."""
        if isinstance(self.module, _LINEAR):
            return inputs.reshape(len(inputs), -1, inputs.shape[-1])
        return functional.unfold(inputs, **_geometry(self.module)).transpose(1, 2)

    @property
    def overlap_width(self) -> int:
        """Products that an overlap of two positions costs."""
        n_in, _ = self.widths
        return n_in // _n_shifts(self.module)

    def overlaps(self, left: Float[Tensor, "a ..."], right: Float[Tensor, "b ..."]) -> Float[Tensor, "a l b l"]:
        """Inner products of what the positions see, of each input on the left with each on the right.

        Of a convolution that keeps the map's size they are sums of the pixels' own inner products, shifted.
        """
        if _n_shifts(self.module) == 1:
            return torch.einsum("apf,bqf->apbq", self.patches(left), self.patches(right))
        reach = self.module.weight.shape[-1] // 2  # type: ignore[index]
        height, width = left.shape[2:]
        pixels = left.flatten(2).transpose(1, 2).reshape(-1, left.shape[1]) @ right.movedim(1, 0).flatten(1)
        pixels = pixels.view(len(left), height, width, len(right), height, width)
        total = torch.zeros_like(pixels)
        for down in range(-reach, reach + 1):
            for across in range(-reach, reach + 1):
                (to_y, from_y), (to_x, from_x) = _shifted(down, height), _shifted(across, width)
                total[:, to_y, to_x, :, to_y, to_x] += pixels[:, from_y, from_x, :, from_y, from_x]
        return total.view(len(left), height * width, len(right), height * width)

    def positions(self, outputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n o l"]:
        """What comes out, or its gradient, by position; a view."""
        if isinstance(self.module, _LINEAR):
            return outputs.reshape(len(outputs), -1, outputs.shape[-1]).transpose(1, 2)
        return outputs.flatten(2)


@dataclass
class Taps:
    """What went through each layer in one forward pass: its input, its output, and how often it was called."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)


def layers_of(module: nn.Module, names: Sequence[str]) -> list[Layer] | None:
    """The layers that these parameters belong to, in the module's order; None where one belongs to none known here.

    Known are `nn.Linear`, `nn.Conv2d` without groups and with zeros around it, and those of the source networks;
    subclasses are not.
    """
    wanted, layers = set(names), []
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        own = {f"{prefix}{name}" for name, _ in part.named_parameters(recurse=False)}
        if not own & wanted:
            continue
        if not _is_known(part):
            return None
        wants = (f"{prefix}weight" in wanted, f"{prefix}bias" in wanted)
        layers.append(Layer(path, part, getattr(part, "scales", (1.0, 1.0)), wants))
        wanted -= own
    return None if wanted else layers


@contextmanager
def tapped(layers: Sequence[Layer]) -> Iterator[Taps]:
    """What goes through the layers meanwhile; later in-place operations do not change what is kept."""
    taps = Taps()

    def keep(layer: Layer, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        taps.inputs[layer.name], taps.outputs[layer.name] = inputs[0].detach(), output
        taps.calls[layer.name] = taps.calls.get(layer.name, 0) + 1
        return output.clone()

    handles = [
        layer.module.register_forward_hook(lambda _, inputs, output, layer=layer: keep(layer, inputs, output))
        for layer in layers
    ]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


def _is_known(part: nn.Module) -> bool:
    if type(part) is nn.Conv2d:
        return part.groups == 1 and part.padding_mode == "zeros" and not isinstance(part.padding, str)
    return type(part) in (nn.Linear, GaussianLinear, GaussianConvolution)


def _n_shifts(part: nn.Module) -> int:
    """Pixels that a position of a convolution that keeps the map's size sees; 1 of any other layer."""
    if isinstance(part, GaussianConvolution):
        return int(part.weight[0, 0].numel())
    if not isinstance(part, nn.Conv2d) or part.stride != (1, 1) or part.dilation != (1, 1):
        return 1
    side = part.kernel_size[0]
    keeps = side % 2 == 1 and part.kernel_size == (side, side) and part.padding == (side // 2, side // 2)
    return side * side if keeps else 1


def _shifted(by: int, size: int) -> tuple[slice, slice]:
    """Where a shifted row or column goes, and where it comes from."""
    return slice(max(0, -by), size - max(0, by)), slice(max(0, by), size - max(0, -by))


def _geometry(part: nn.Module) -> dict[str, int | tuple[int, ...]]:
    if isinstance(part, GaussianLayer):
        side = part.weight.shape[-1]
        return {"kernel_size": side, "padding": side // 2}
    assert isinstance(part, nn.Conv2d)
    return {name: getattr(part, name) for name in ("kernel_size", "stride", "padding", "dilation")}
