"""Cosines between image embeddings and embedded class names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

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
    def from_names(cls, backbone: Backbone, classes: Sequence[str], *, templates: Sequence[str]) -> TextMapping:
        """Embed each class name in each template once, underscores read as spaces; SpecError without a text tower.

        One template at a time, so memory does not grow with their number.
        """
        names = [name.replace("_", " ") for name in classes]
        embeddings = [backbone.encode_text([template.replace("{}", name) for name in names]) for template in templates]
        if len(embeddings) == 1:
            return cls(embeddings[0])
        return cls(functional.normalize(torch.stack(embeddings).mean(0), dim=1))

    def forward(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return outputs @ self.text_embeddings.T

    def matrix(self) -> Float[Tensor, "d c"]:
        return self.text_embeddings.T
