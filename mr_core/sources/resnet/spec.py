"""ResNet-like networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.sources.base import Layer, Shape, SourceSpec

if TYPE_CHECKING:
    from mr_core.sources.network import ConvolutionalNetwork


class ResnetSpec(SourceSpec):
    """A 3x3 convolution, then groups of residual blocks of two, an average pooling and doubled width between groups.

    After He et al., 2016, arXiv:1512.03385, without BatchNorm, as the experiments around arXiv:2506.00620 have it.
    Where the width changes a 1x1 convolution is the shortcut.
    """

    kind: Literal["resnet"] = "resnet"
    depth: int = Field(3, ge=1, le=6, description="Residual blocks, of two convolutions each.")
    width: int = Field(32, ge=1, le=1024, description="Channels of the first group.")
    group_size: int = Field(2, ge=1, le=6, description="Blocks of a group; the last may have fewer.")

    @property
    def n_poolings(self) -> int:
        return (self.depth - 1) // self.group_size

    @property
    def embedding_width(self) -> int:
        return self.width_at(self.depth - 1)

    def width_at(self, index: int) -> int:
        """Channels of a block, counted from 0."""
        return self.width << (index // self.group_size)

    def layers(self, shape: Shape) -> list[Layer]:
        channels, height, width = shape
        layers = [Layer(channels, self.width, 3, height, width)]
        n_in = self.width
        for index in range(self.depth):
            poolings, n_out = index // self.group_size, self.width_at(index)
            size = height >> poolings, width >> poolings
            layers += [Layer(n_in, n_out, 3, *size), Layer(n_out, n_out, 3, *size)]
            if n_in != n_out:
                layers.append(Layer(n_in, n_out, 1, *size))
            n_in = n_out
        return layers

    def build(self, shape: Shape, n_classes: int) -> ConvolutionalNetwork:
        from mr_core.sources.resnet.network import build

        return build(self, shape, n_classes)
