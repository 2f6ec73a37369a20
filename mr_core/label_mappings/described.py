"""The modules of mappings that have several texts for each class."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mr_core.backbones.backbone import Backbone
from mr_core.label_mappings.module import FittingOutputs, LabelMapping

Embed = Callable[[], Tensor]  # (c, m, d), unit rows


class DescribedMapping(LabelMapping):
    """Target logits are `s v . t_c`, t_c a weighted sum of the class's unit text embeddings, v the unit image's.

    The texts are embedded when the mapping is first fitted, and kept with the adapter: loading one needs no pass
    through the text tower. Before that all logits are 0. Memory: c m d numbers.
    """

    reads = "image_text"
    texts: Float[Tensor, "c m d"]

    def __init__(self, *, n_targets: int, n_texts: int, width: int, embed: Embed) -> None:
        super().__init__()
        self._embed = embed
        self.register_buffer("texts", torch.zeros(n_targets, n_texts, width))

    @abstractmethod
    def classifier(self) -> Float[Tensor, "c d"]:
        """The text embedding of each class."""

    def forward(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return outputs @ self.classifier().T

    def matrix(self) -> Float[Tensor, "d c"]:
        return self.classifier().detach().T

    @torch.no_grad()
    def fit(
        self, outputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, validation: FittingOutputs | None = None
    ) -> None:
        if not self.texts.any():
            self.texts.copy_(self._embed())


def embedding(backbone: Backbone, texts: Callable[[], list[list[str]]]) -> Embed:
    """A function that embeds those texts, one class at a time, so memory does not grow with the classes."""

    def embed() -> Float[Tensor, "c m d"]:
        return torch.stack([backbone.encode_text(of_class) for of_class in texts()])

    return embed
