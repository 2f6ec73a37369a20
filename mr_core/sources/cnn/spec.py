"""Plain convolutional networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.sources.base import Layer, Shape, SourceSpec

if TYPE_CHECKING:
    from mr_core.sources.network import ConvolutionalNetwork


class CnnSpec(SourceSpec):
    """3x3 convolutions with ReLU at one width, one average pooling, the mean over the map, the linear head.

    The CNN sources of the experiments around arXiv:2506.00620.
    """

    kind: Literal["cnn"] = "cnn"
    depth: int = Field(3, ge=1, le=6, description="Convolutions, the linear head aside.")
    width: int = Field(32, ge=1, le=4096, description="Channels of each convolution; the experiments have 512 and 32.")

    @property
    def embedding_width(self) -> int:
        return self.width

    @property
    def n_poolings(self) -> int:
        return 1

    def layers(self, shape: Shape) -> list[Layer]:
        channels, height, width = shape
        widths = [channels, *[self.width] * (self.depth - 1)]
        return [Layer(n_in, self.width, 3, height, width) for n_in in widths]

    def build(self, shape: Shape, n_classes: int) -> ConvolutionalNetwork:
        from mr_core.sources.cnn.network import build

        return build(self, shape, n_classes)
