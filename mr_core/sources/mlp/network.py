"""The fully connected network."""

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.sources.base import Shape
from mr_core.sources.mlp.spec import MlpSpec
from mr_core.sources.network import GaussianLinear, SourceNetwork


class FullyConnectedNetwork(SourceNetwork):
    """`depth` hidden layers of one width."""

    def __init__(self, spec: MlpSpec, shape: Shape, n_classes: int) -> None:
        super().__init__(shape, embedding_width=spec.width, n_classes=n_classes)
        widths = [math.prod(shape), *[spec.width] * spec.depth]
        self.hidden = nn.ModuleList(
            GaussianLinear(n_in, n_out, spec.parametrisation) for n_in, n_out in itertools.pairwise(widths)
        )
        self.head = GaussianLinear(spec.width, n_classes, spec.parametrisation)

    def embed(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        values = inputs.flatten(1)
        for layer in self.hidden:
            values = torch.relu(layer(values))
        return values

    def classify(self, embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        logits: Tensor = self.head(embeddings)
        return logits
