"""Texts weighted by how often they are near."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

from mr_core.label_mappings.described import DescribedMapping, Embed
from mr_core.label_mappings.module import FittingOutputs


class ProbabilisticReweightingMapping(DescribedMapping):
    """`f_c = sum_j w_cj s v_g(c,j) . t_cj`; w_c are the shares of the class's texts among its images' k nearest.

    v_g is the view of the text's group: those given, else found by k-means once the texts are embedded (the published
    code calls its plain k-means balanced). Linear in the views side by side.
    """

    refit = "each_epoch"
    weights: Float[Tensor, "c m"]
    groups: Int[Tensor, "c m"]

    def __init__(
        self,
        *,
        top_k: int,
        n_targets: int,
        n_texts: int,
        width: int,
        embed: Embed,
        views: int = 1,
        groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__(n_targets=n_targets, n_texts=n_texts, width=width, embed=embed)
        self.views = views
        self._top_k = min(top_k, n_texts)
        self._groups_are_found = groups is None and views > 1
        self.register_buffer("weights", torch.full((n_targets, n_texts), 1 / n_texts))
        if views > 1:
            given = torch.tensor(groups or [0] * n_texts)
            self.register_buffer("groups", given.repeat(n_targets, 1))

    def classifier(self) -> Float[Tensor, "c _"]:
        return self._by_view(self.weights[:, :, None] * self.texts).sum(1)

    @torch.no_grad()
    def fit(
        self, outputs: Float[Tensor, "n _"], labels: Int[Tensor, " n"], *, validation: FittingOutputs | None = None
    ) -> None:
        is_new = not self.texts.any()
        super().fit(outputs, labels)
        if is_new and self._groups_are_found:
            self.groups.copy_(_clusters(self.texts, self.views))
        counts = torch.zeros_like(self.weights)
        for target, texts in enumerate(self._by_view(self.texts).to(outputs)):
            nearest = (outputs[labels == target] @ texts.T).topk(self._top_k, dim=1).indices
            counts[target] = torch.bincount(nearest.flatten(), minlength=len(texts)).to(counts)
        totals = counts.sum(1, keepdim=True)
        self.weights.copy_(torch.where(totals > 0, counts / totals.clamp(min=1), 1 / counts.shape[1]))

    def _by_view(self, texts: Float[Tensor, "c m d"]) -> Float[Tensor, "c m _"]:
        """Each text where its view's outputs are, 0 where those of the others are."""
        if self.views == 1:
            return texts
        places = functional.one_hot(self.groups, self.views).to(texts)
        return (places[..., None] * texts[:, :, None]).flatten(2)


def _clusters(texts: Float[Tensor, "c m d"], n_clusters: int) -> Int[Tensor, "c m"]:
    found = KMeans(n_clusters, n_init=10, random_state=0).fit_predict(texts.flatten(0, 1).double().cpu().numpy())
    return torch.from_numpy(found).view(texts.shape[:2])
