"""One source class for each target class, chosen by counting predictions."""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mr_core.errors import SpecError
from mr_core.label_mappings.frequent.spec import Ties
from mr_core.label_mappings.module import LabelMapping, Refit


class FrequentMapping(LabelMapping):
    """Target logits are the source logits of the chosen classes, `Z[:, source_of_target]`; no parameters.

    The mapping is injective. Until `fit` it is the arbitrary map of target t to source t.
    """

    reads = "source_logits"
    source_of_target: Int[Tensor, " c"]

    def __init__(self, *, n_sources: int, n_targets: int, ties: Ties, refit: Refit = "once") -> None:
        super().__init__()
        if n_targets > n_sources:
            raise SpecError(
                f"{n_targets} target classes but {n_sources} source classes: a one-to-one mapping needs at least as "
                "many source classes; use the linear mapping",
                param="label_mapping.kind",
            )
        self.refit = refit
        self._n_sources = n_sources
        self._ties = ties
        self.register_buffer("source_of_target", torch.arange(n_targets))

    def forward(self, outputs: Float[Tensor, "n s"]) -> Float[Tensor, "n c"]:
        return outputs.index_select(1, self.source_of_target)

    def fit(self, outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"]) -> None:
        n_targets = len(self.source_of_target)
        counts = prediction_counts(outputs, labels, n_targets=n_targets)
        tie_breaks = None
        if self._ties == "probability":
            tie_breaks = mean_probabilities(outputs, labels, n_targets=n_targets)
        chosen = greedy_assignment(counts.numpy(), tie_breaks)
        self.source_of_target.copy_(torch.from_numpy(chosen))

    def matrix(self) -> Float[Tensor, "s c"]:
        one_hot = torch.zeros(self._n_sources, len(self.source_of_target), device=self.source_of_target.device)
        return one_hot.scatter_(0, self.source_of_target.unsqueeze(0), 1.0)


def prediction_counts(
    outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"], *, n_targets: int
) -> Int[Tensor, "s c"]:
    """`n[s, t]`: how many samples of target class t the source model puts into source class s."""
    n_sources = outputs.shape[1]
    cells = outputs.argmax(dim=1) * n_targets + labels
    return torch.bincount(cells, minlength=n_sources * n_targets).view(n_sources, n_targets).cpu()


def mean_probabilities(
    outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"], *, n_targets: int
) -> NDArray[np.float64]:
    """Mean softmax probability of each source class over each target class's samples, `(s, c)`; 0 without samples."""
    probabilities = outputs.double().softmax(dim=1)
    sums = torch.zeros(n_targets, outputs.shape[1], dtype=torch.float64, device=outputs.device)
    sums.index_add_(0, labels, probabilities)
    samples = torch.bincount(labels, minlength=n_targets).clamp(min=1)
    means: NDArray[np.float64] = (sums / samples.unsqueeze(1)).T.cpu().numpy()
    return means


def greedy_assignment(counts: NDArray[np.int64], tie_breaks: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """The source class of each target class: largest count first, each source used once (arXiv:2211.11635, FLM).

    Equal counts go to the larger `tie_breaks` entry, in [0, 1]; without it to the first cell, source-major,
    as in the published code. Also decides among zero counts, where the published choice is arbitrary.
    """
    scores = counts.astype(np.float64)
    if tie_breaks is not None:
        scores += tie_breaks / 2  # a half never outweighs a whole count
    n_targets = counts.shape[1]
    chosen = np.full(n_targets, -1, dtype=np.int64)
    for _ in range(n_targets):
        source, target = np.unravel_index(scores.argmax(), scores.shape)
        chosen[target] = source
        scores[source, :] = -1
        scores[:, target] = -1
    return chosen
