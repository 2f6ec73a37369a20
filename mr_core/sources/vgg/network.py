"""The VGG-like network."""

from torch import nn

from mr_core.sources.base import Shape
from mr_core.sources.network import ConvolutionalNetwork, GaussianConvolution
from mr_core.sources.vgg.spec import VggSpec


def build(spec: VggSpec, shape: Shape, n_classes: int) -> ConvolutionalNetwork:
    """One pooling of 2x2 cells ends each group, the last one's too."""
    modules: list[nn.Module] = []
    n_in = shape[0]
    for index in range(spec.depth):
        modules += [GaussianConvolution(n_in, spec.width_at(index), spec.parametrisation), nn.ReLU()]
        n_in = spec.width_at(index)
        if (index + 1) % spec.group_size == 0 or index + 1 == spec.depth:
            modules.append(nn.AvgPool2d(2))
    return ConvolutionalNetwork(
        shape,
        nn.Sequential(*modules),
        embedding_width=spec.embedding_width,
        n_classes=n_classes,
        parametrisation=spec.parametrisation,
    )
