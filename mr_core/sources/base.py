"""The family's contract: a spec that lists its layers, says whether they fit, and builds the network. Torch-free."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.errors import SpecError
from mr_core.registry import MethodSpec

if TYPE_CHECKING:
    from mr_core.sources.network import SourceNetwork

Shape = tuple[int, int, int]  # channels, height, width
Parametrisation = Literal["standard", "ntk"]

MOST_PARAMETERS = 128 * 2**20  # half a GiB of weights; training holds about six times that
MOST_ACTIVATIONS = 2**28  # of one input, over all layers: 1 GiB
PASS_ACTIVATIONS = 2**27  # of all inputs of a pass
_PASS = 256


@dataclass(frozen=True)
class Layer:
    """One weighted layer: a convolution of `kernel` x `kernel` onto a map of height x width, or a linear layer."""

    n_in: int
    n_out: int
    kernel: int = 1
    height: int = 1
    width: int = 1

    @property
    def parameters(self) -> int:
        return self.n_out * (self.n_in * self.kernel**2 + 1)

    @property
    def activations(self) -> int:
        return self.n_out * self.height * self.width

    @property
    def multiply_adds(self) -> int:
        return self.n_in * self.kernel**2 * self.activations


class SourceSpec(MethodSpec, ABC):
    """Hyper-parameters of a source architecture."""

    kind: str
    depth: int = Field(3, ge=1, le=6, description="Weighted layers before the linear head.")
    parametrisation: Parametrisation = Field(
        "standard",
        description="Where the Gaussian initialisation's scale is: in the weights, as the experiments have it, or "
        "in the forward pass (`ntk`). The function at the start is the same, tangent kernel and training are not.",
    )

    @abstractmethod
    def layers(self, shape: Shape) -> list[Layer]:
        """The weighted layers before the head, for inputs of that shape."""

    @property
    @abstractmethod
    def embedding_width(self) -> int:
        """What the head reads."""

    @property
    def n_poolings(self) -> int:
        """Average poolings that halve the map, the global one aside."""
        return 0

    @abstractmethod
    def build(self, shape: Shape, n_classes: int) -> SourceNetwork:
        """The network, its weights drawn from torch's global generator."""

    def n_parameters(self, shape: Shape, n_classes: int) -> int:
        """Weights and biases, the head's among them."""
        return sum(layer.parameters for layer in self._all_layers(shape, n_classes))

    def multiply_adds(self, shape: Shape, n_classes: int) -> int:
        """Of a forward pass of one input."""
        return sum(layer.multiply_adds for layer in self._all_layers(shape, n_classes))

    def pass_size(self, shape: Shape) -> int:
        """Inputs that go through at once within half a GiB of activations."""
        activations = sum(layer.activations for layer in self.layers(shape))
        return max(1, min(_PASS, PASS_ACTIVATIONS // activations))

    def check(self, shape: Shape, n_classes: int) -> None:
        """SpecError where the network does not fit the input, or is too large to train here."""
        _, height, width = shape
        side = min(height, width)
        if side >> self.n_poolings < 1:
            raise SpecError(
                f"{self.kind} of depth {self.depth} halves its map {self.n_poolings} times, and an input of {height} x "
                f"{width} is too small for that: it needs {2**self.n_poolings} a side",
                param="architecture.depth",
            )
        n_parameters = self.n_parameters(shape, n_classes)
        if n_parameters > MOST_PARAMETERS:
            raise SpecError(
                f"{self.kind} of depth {self.depth} on an input of {shape[0]} x {height} x {width} has {n_parameters} "
                f"parameters, expected at most {MOST_PARAMETERS}: a smaller width, depth or canvas",
                param="architecture.width",
            )
        activations = sum(layer.activations for layer in self.layers(shape))
        if activations > MOST_ACTIVATIONS:
            raise SpecError(
                f"{self.kind} of depth {self.depth} computes {activations} values for one input of {height} x {width}, "
                f"expected at most {MOST_ACTIVATIONS}: a smaller width, depth or canvas",
                param="architecture.width",
            )

    def _all_layers(self, shape: Shape, n_classes: int) -> list[Layer]:
        return [*self.layers(shape), Layer(self.embedding_width, n_classes)]
