"""Texts weighted by how often they are near."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mr_core.label_mappings.described import DescribedMapping, Embed
from mr_core.label_mappings.module import FittingOutputs


class ProbabilisticReweightingMapping(DescribedMapping):
    """`f_c = s v . sum_j w_cj t_cj`; w_c are the shares of the class's texts among its images' k nearest."""

    refit = "each_epoch"
    weights: Float[Tensor, "c m"]

    def __init__(self, *, top_k: int, n_targets: int, n_texts: int, width: int, embed: Embed) -> None:
        super().__init__(n_targets=n_targets, n_texts=n_texts, width=width, embed=embed)
        self._top_k = min(top_k, n_texts)
        self.register_buffer("weights", torch.full((n_targets, n_texts), 1 / n_texts))

    def classifier(self) -> Float[Tensor, "c d"]:
        return torch.einsum("cm,cmd->cd", self.weights, self.texts)

    @torch.no_grad()
    def fit(
        self, outputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, validation: FittingOutputs | None = None
    ) -> None:
        super().fit(outputs, labels)
        counts = torch.zeros_like(self.weights)
        for target, texts in enumerate(self.texts.to(outputs)):
            nearest = (outputs[labels == target] @ texts.T).topk(self._top_k, dim=1).indices
            counts[target] = torch.bincount(nearest.flatten(), minlength=len(texts)).to(counts)
        totals = counts.sum(1, keepdim=True)
        self.weights.copy_(torch.where(totals > 0, counts / totals.clamp(min=1), 1 / counts.shape[1]))
