"""The ResNet-like network."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.sources.base import Parametrisation, Shape
from mr_core.sources.network import ConvolutionalNetwork, GaussianConvolution
from mr_core.sources.resnet.spec import ResnetSpec


class ResidualBlock(nn.Module):
    """`relu(second(relu(first(x))) + shortcut(x))`."""

    def __init__(self, n_in: int, n_out: int, parametrisation: Parametrisation) -> None:
        super().__init__()
        self.first = GaussianConvolution(n_in, n_out, parametrisation)
        self.second = GaussianConvolution(n_out, n_out, parametrisation)
        self.shortcut = nn.Identity() if n_in == n_out else GaussianConvolution(n_in, n_out, parametrisation, kernel=1)

    def forward(self, maps: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h w"]:
        residual = self.second(torch.relu(self.first(maps)))
        return torch.relu(residual + self.shortcut(maps))


def build(spec: ResnetSpec, shape: Shape, n_classes: int) -> ConvolutionalNetwork:
    """A pooling of 2x2 cells stands before each group but the first."""
    modules: list[nn.Module] = [GaussianConvolution(shape[0], spec.width, spec.parametrisation), nn.ReLU()]
    n_in = spec.width
    for index in range(spec.depth):
        if index and index % spec.group_size == 0:
            modules.append(nn.AvgPool2d(2))
        modules.append(ResidualBlock(n_in, spec.width_at(index), spec.parametrisation))
        n_in = spec.width_at(index)
    return ConvolutionalNetwork(
        shape,
        nn.Sequential(*modules),
        embedding_width=spec.embedding_width,
        n_classes=n_classes,
        parametrisation=spec.parametrisation,
    )
