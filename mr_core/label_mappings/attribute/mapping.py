"""The nearest attributes of each class."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mr_core.label_mappings.described import Embed
from mr_core.label_mappings.module import FittingOutputs, LabelMapping


class AttributeMapping(LabelMapping):
    """`sum_w w mean_{top-k j} s v . t_cj` over sets of texts, weights w adding to 1 (arXiv:2501.13982, section 4).

    The k nearest are those of each sample and class, so it is linear only between changes of neighbours. The texts are
    embedded when the mapping is first fitted, and kept with the adapter. Memory: c m d numbers a set, n c m in a pass.
    """

    reads = "image_text"
    refit = "once"
    is_linear = False

    def __init__(
        self,
        *,
        top_k: int,
        weights: Sequence[float],
        n_targets: int,
        n_texts: Sequence[int],
        width: int,
        embed: Sequence[Embed],
    ) -> None:
        super().__init__()
        self._top_k, self._weights, self._embed = top_k, tuple(weights), tuple(embed)
        for index, n in enumerate(n_texts):
            self.register_buffer(f"texts_{index}", torch.zeros(n_targets, n, width))

    def sets(self) -> list[Float[Tensor, "c m d"]]:
        """The unit text embeddings of each set."""
        return [self.get_buffer(f"texts_{index}") for index in range(len(self._weights))]

    def forward(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        scores = [
            weight * torch.einsum("nd,cmd->ncm", outputs, texts).topk(min(self._top_k, texts.shape[1])).values.mean(2)
            for weight, texts in zip(self._weights, self.sets(), strict=True)
        ]
        return torch.stack(scores).sum(0)

    @torch.no_grad()
    def fit(
        self, outputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, validation: FittingOutputs | None = None
    ) -> None:
        for texts, embed in zip(self.sets(), self._embed, strict=True):
            if not texts.any():
                texts.copy_(embed())

    def matrix(self) -> Float[Tensor, "d c"]:
        """That of k = m: each class by the mean of its texts."""
        means = [weight * texts.mean(1) for weight, texts in zip(self._weights, self.sets(), strict=True)]
        return torch.stack(means).sum(0).T
