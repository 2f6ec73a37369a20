"""Fully connected networks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.sources.base import Layer, Shape, SourceSpec

if TYPE_CHECKING:
    from mr_core.sources.mlp.network import FullyConnectedNetwork


class MlpSpec(SourceSpec):
    """Linear layers with ReLU on all values of the input, then the linear head.

    The DNN sources of the experiments around arXiv:2506.00620.
    """

    kind: Literal["mlp"] = "mlp"
    depth: int = Field(3, ge=1, le=9, description="Hidden layers, the linear head aside.")
    width: int = Field(
        512, ge=1, le=16_384, description="Of each hidden layer; the experiments have 2048, this fits a CPU."
    )

    @property
    def embedding_width(self) -> int:
        return self.width

    def layers(self, shape: Shape) -> list[Layer]:
        return [Layer(math.prod(shape), self.width), *[Layer(self.width, self.width)] * (self.depth - 1)]

    def build(self, shape: Shape, n_classes: int) -> FullyConnectedNetwork:
        from mr_core.sources.mlp.network import FullyConnectedNetwork

        return FullyConnectedNetwork(self, shape, n_classes)
