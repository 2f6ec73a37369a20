"""Cosines between image embeddings and embedded class names."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from mr_core.backbones.backbone import Backbone
from mr_core.label_mappings.module import LabelMapping


class TextMapping(LabelMapping):
    """`s v . t_c` with unit image embedding v, unit text embedding t_c and the backbone's logit scale s."""

    reads = "image_text"
    text_embeddings: Float[Tensor, "c d"]

    def __init__(self, text_embeddings: Float[Tensor, "c d"]) -> None:
        super().__init__()
        self.register_buffer("text_embeddings", text_embeddings)

    @classmethod
    def from_names(cls, backbone: Backbone, classes: Sequence[str], *, template: str) -> TextMapping:
        """Embed each class name once, underscores read as spaces; SpecError without a text tower."""
        return cls(backbone.encode_text([template.format(name.replace("_", " ")) for name in classes]))

    def forward(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return outputs @ self.text_embeddings.T

    def matrix(self) -> Float[Tensor, "d c"]:
        return self.text_embeddings.T
