"""A trained linear layer on the scores of texts."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mr_core.label_mappings.described import DescribedMapping, Embed
from mr_core.label_mappings.module import FittingOutputs


class TextScoresMapping(DescribedMapping):
    """`W (s v . t) + b` over all texts t of all classes: AutoVP's fully connected mapping of CLIP (arXiv:2310.08381).

    Starts at zero, or where each class is its own last text, the default template's: zero-shot classification.
    """

    refit = "once"

    def __init__(self, *, n_targets: int, n_texts: int, width: int, embed: Embed, starts_mapped: bool) -> None:
        super().__init__(n_targets=n_targets, n_texts=n_texts, width=width, embed=embed)
        self._starts_mapped = starts_mapped
        self.weight = nn.Parameter(torch.zeros(n_targets, n_targets * n_texts))
        self.bias = nn.Parameter(torch.zeros(n_targets))

    def classifier(self) -> Float[Tensor, "c d"]:
        return self.weight @ self.texts.flatten(0, 1)

    def forward(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return functional.linear(outputs, self.classifier(), self.bias)

    @torch.no_grad()
    def fit(
        self, outputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, validation: FittingOutputs | None = None
    ) -> None:
        super().fit(outputs, labels)
        if self._starts_mapped:
            n_targets, n_texts = self.texts.shape[:2]
            own = torch.arange(n_targets)
            self.weight.zero_()
            self.weight[own, own * n_texts + n_texts - 1] = 1
