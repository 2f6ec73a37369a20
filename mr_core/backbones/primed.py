"""A backbone with a source head of its own making on its frozen embedding."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.backbones.backbone import Backbone, SourceModel
from mr_core.backbones.description import Output


class PrimedSource(SourceModel):
    """The base's embedding, and source logits that `head` makes of it. No text tower: its classes are another's."""

    def __init__(self, base: SourceModel, weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"]) -> None:
        super().__init__()
        self.base = base
        self.embedding_width = base.embedding_width
        self.n_source_classes = len(weight)
        self.only_canvas, self.most_images = base.only_canvas, base.most_images
        self.head = nn.Linear(weight.shape[1], len(weight))
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        embeddings = self.base.outputs(canvases, ("embedding",))["embedding"]
        made: dict[Output, Tensor] = {"embedding": embeddings}
        if "source_logits" in names:
            made["source_logits"] = self.head(embeddings)
        return {name: made[name] for name in names}


def primed(
    backbone: Backbone,
    weight: Float[Tensor, "k d"],
    bias: Float[Tensor, " k"],
    *,
    source_classes: Sequence[str] | None = None,
) -> Backbone:
    """The backbone, in the form it has, with this head; its own tensors are shared and stay what identifies it."""
    source = PrimedSource(backbone.source, weight, bias).to(backbone.mean.device)
    return backbone.around(source, source_classes=source_classes)


def source_head(backbone: Backbone) -> nn.Linear | None:
    """The head of a primed backbone; None of any other."""
    return backbone.source.head if isinstance(backbone.source, PrimedSource) else None
