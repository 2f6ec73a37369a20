"""Which source classes go to which target class, by how often the source model predicts them."""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mr_core.label_mappings.frequent.spec import Counting


def choose_frequent(
    outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"], *, counting: Counting, n_targets: int
) -> NDArray[np.int64]:
    """The source classes `(c, m)` of each target class, as the spec counts and assigns them."""
    scores = prediction_counts(outputs, labels, n_targets=n_targets).numpy().astype(np.float64)
    if counting.ties == "probability":
        scores += mean_probabilities(outputs, labels, n_targets=n_targets) / 2  # a half never outweighs a whole count
    assign = greedy_assignment if counting.assignment == "greedy" else optimal_assignment
    return assign(scores, counting.sources_per_class)


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


def greedy_assignment(scores: Float[NDArray[np.float64], "s c"], sources_per_class: int) -> NDArray[np.int64]:
    """The largest score first, each source once, each target `sources_per_class` times (arXiv:2211.11635, FLM).

    Equal scores go to the first cell, source-major, as in the published code. That decides among zero counts too,
    where its choice is arbitrary.
    """
    scores = scores.copy()
    n_targets = scores.shape[1]
    chosen: list[list[int]] = [[] for _ in range(n_targets)]
    for _ in range(n_targets * sources_per_class):
        source, target = np.unravel_index(scores.argmax(), scores.shape)
        chosen[target].append(int(source))
        scores[source, :] = -1
        if len(chosen[target]) == sources_per_class:
            scores[:, target] = -1
    return np.array(chosen, dtype=np.int64)


def optimal_assignment(scores: Float[NDArray[np.float64], "s c"], sources_per_class: int) -> NDArray[np.int64]:
    """The assignment of the largest sum of scores (Kuhn, 1955, the Hungarian method; scipy's Jonker-Volgenant form)."""
    n_targets = scores.shape[1]
    sources, places = linear_sum_assignment(np.repeat(scores, sources_per_class, axis=1), maximize=True)
    chosen = np.empty(n_targets * sources_per_class, dtype=np.int64)
    chosen[places] = sources
    return chosen.reshape(n_targets, sources_per_class)
