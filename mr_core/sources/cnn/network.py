"""The plain convolutional network."""

from torch import nn

from mr_core.sources.base import Shape
from mr_core.sources.cnn.spec import CnnSpec
from mr_core.sources.network import ConvolutionalNetwork, GaussianConvolution


def build(spec: CnnSpec, shape: Shape, n_classes: int) -> ConvolutionalNetwork:
    """The pooling takes 2x2 cells; of an odd side the last row is left out, as PyTorch's does."""
    modules: list[nn.Module] = []
    n_in = shape[0]
    for _ in range(spec.depth):
        modules += [GaussianConvolution(n_in, spec.width, spec.parametrisation), nn.ReLU()]
        n_in = spec.width
    return ConvolutionalNetwork(
        shape,
        nn.Sequential(*modules, nn.AvgPool2d(2)),
        embedding_width=spec.embedding_width,
        n_classes=n_classes,
        parametrisation=spec.parametrisation,
    )
