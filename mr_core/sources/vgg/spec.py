"""VGG-like networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.sources.base import Layer, Shape, SourceSpec

if TYPE_CHECKING:
    from mr_core.sources.network import ConvolutionalNetwork


class VggSpec(SourceSpec):
    """Groups of 3x3 convolutions with ReLU, each ended by an average pooling, the width doubling from group to group.

    After Simonyan and Zisserman, 2015, arXiv:1409.1556, with average pooling and neither BatchNorm nor hidden linear
    layers, as the experiments around arXiv:2506.00620 have it.
    """

    kind: Literal["vgg"] = "vgg"
    depth: int = Field(3, ge=1, le=6, description="Convolutions, the linear head aside.")
    width: int = Field(32, ge=1, le=1024, description="Channels of the first group.")
    group_size: int = Field(2, ge=1, le=6, description="Convolutions of a group; the last may have fewer.")

    @property
    def n_poolings(self) -> int:
        return -(-self.depth // self.group_size)

    @property
    def embedding_width(self) -> int:
        return self.width_at(self.depth - 1)

    def width_at(self, index: int) -> int:
        """Channels of a convolution, counted from 0."""
        return self.width << (index // self.group_size)

    def layers(self, shape: Shape) -> list[Layer]:
        n_in, height, width = shape
        layers = []
        for index in range(self.depth):
            poolings = index // self.group_size
            layers.append(Layer(n_in, self.width_at(index), 3, height >> poolings, width >> poolings))
            n_in = self.width_at(index)
        return layers

    def build(self, shape: Shape, n_classes: int) -> ConvolutionalNetwork:
        from mr_core.sources.vgg.network import build

        return build(self, shape, n_classes)
