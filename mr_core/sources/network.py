"""The networks of the tangent-kernel theory: Gaussian layers, ReLU, average pooling, no BatchNorm."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mr_core.errors import SpecError
from mr_core.sources.base import Parametrisation, Shape

WEIGHT_VARIANCE = 2.0  # over the fan-in
BIAS_VARIANCE = 0.1


class GaussianLayer(nn.Module):
    """Weights with the standard deviation sqrt(2 / fan-in), biases with sqrt(0.1) (arXiv:2506.00620's experiments).

    `standard` draws them so. `ntk` draws unit Gaussians and multiplies in the forward pass, which gives the same
    function from the same generator, and a tangent kernel with a limit as the width grows.
    """

    def __init__(self, weight_shape: tuple[int, ...], parametrisation: Parametrisation) -> None:
        super().__init__()
        fan_in = math.prod(weight_shape[1:])
        deviations = math.sqrt(WEIGHT_VARIANCE / fan_in), math.sqrt(BIAS_VARIANCE)
        drawn, self.scales = deviations, (1.0, 1.0)  # what weight and bias are multiplied by in the forward pass
        if parametrisation == "ntk":
            drawn, self.scales = self.scales, drawn
        self.weight = nn.Parameter(torch.randn(weight_shape) * drawn[0])
        self.bias = nn.Parameter(torch.randn(weight_shape[0]) * drawn[1])

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Weight and bias as the forward pass uses them."""
        if self.scales == (1.0, 1.0):
            return self.weight, self.bias
        return self.weight * self.scales[0], self.bias * self.scales[1]


class GaussianLinear(GaussianLayer):
    """A linear layer."""

    def __init__(self, n_in: int, n_out: int, parametrisation: Parametrisation) -> None:
        super().__init__((n_out, n_in), parametrisation)

    def forward(self, values: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        return functional.linear(values, *self.scaled())


class GaussianConvolution(GaussianLayer):
    """A convolution of odd `kernel` that keeps the map's size, with zeros around it."""

    def __init__(self, n_in: int, n_out: int, parametrisation: Parametrisation, *, kernel: int = 3) -> None:
        super().__init__((n_out, n_in, kernel, kernel), parametrisation)

    def forward(self, maps: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h w"]:
        return functional.conv2d(maps, *self.scaled(), padding=self.weight.shape[-1] // 2)


class SourceNetwork(nn.Module, ABC):
    """From inputs of `shape` to an embedding, and by a linear `head` to the classes' logits."""

    def __init__(self, shape: Shape, *, embedding_width: int, n_classes: int) -> None:
        super().__init__()
        self.shape = shape
        self.embedding_width = embedding_width
        self.n_classes = n_classes

    @abstractmethod
    def embed(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What the head reads."""

    @abstractmethod
    def classify(self, embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """The head's logits."""

    def maps(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d u v"]:
        """The last spatial map; SpecError where the network has none."""
        raise SpecError(f"{type(self).__name__} has no spatial feature map", param="backbone")

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.classify(self.embed(inputs))


class ConvolutionalNetwork(SourceNetwork):
    """A trunk of convolutions, the mean over its last map, and the head."""

    def __init__(
        self,
        shape: Shape,
        trunk: nn.Module,
        *,
        embedding_width: int,
        n_classes: int,
        parametrisation: Parametrisation,
    ) -> None:
        super().__init__(shape, embedding_width=embedding_width, n_classes=n_classes)
        self.trunk = trunk
        self.head = GaussianLinear(embedding_width, n_classes, parametrisation)

    def maps(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d u v"]:
        maps: Tensor = self.trunk(inputs)
        return maps

    def embed(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.maps(inputs).mean(dim=(2, 3))

    def classify(self, embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        logits: Tensor = self.head(embeddings)
        return logits
