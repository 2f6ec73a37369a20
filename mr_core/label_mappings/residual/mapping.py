"""Weighted texts with a residual between classes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.label_mappings.described import DescribedMapping, Embed


class ResidualMapping(DescribedMapping):
    """`f (I + E)` with `f_c = s v . sum_j softmax(P_c)_j t_cj`; P (c, m) and E (c, c) train, both 0 at first."""

    refit = "once"

    def __init__(self, *, n_targets: int, n_texts: int, width: int, embed: Embed) -> None:
        super().__init__(n_targets=n_targets, n_texts=n_texts, width=width, embed=embed)
        self.weights = nn.Parameter(torch.zeros(n_targets, n_texts))
        self.residual = nn.Parameter(torch.zeros(n_targets, n_targets))

    def classifier(self) -> Float[Tensor, "c d"]:
        means = torch.einsum("cm,cmd->cd", self.weights.softmax(1), self.texts)
        return means + self.residual.T @ means
