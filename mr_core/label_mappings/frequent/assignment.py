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
    return choose_by_tally(tally_predictions(outputs, labels, n_targets=n_targets), counting=counting)


def tally_predictions(
    outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"], *, n_targets: int
) -> Float[Tensor, "2 s c"]:
    """Prediction counts, and the sums of each source class's probabilities; float64, on the CPU, adds up over parts."""
    counts = prediction_counts(outputs, labels, n_targets=n_targets)
    return torch.stack([counts.double(), probability_sums(outputs, labels, n_targets=n_targets)])


def choose_by_tally(tally: Float[Tensor, "2 s c"], *, counting: Counting) -> NDArray[np.int64]:
    """The source classes `(c, m)` of each target class, from the tally of its samples."""
    counts, sums = tally
    scores = counts.clone()
    if counting.ties == "probability":
        means = sums / counts.sum(0).clamp(min=1)
        n_chosen = counts.shape[1] * counting.sources_per_class
        scores += means / (2 * n_chosen)  # those of all that are chosen never outweigh a single count
    assign = greedy_assignment if counting.assignment == "greedy" else optimal_assignment
    return assign(scores.numpy(), counting.sources_per_class)


def prediction_counts(
    outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"], *, n_targets: int
) -> Int[Tensor, "s c"]:
    """`n[s, t]`: how many samples of target class t the source model puts into source class s."""
    n_sources = outputs.shape[1]
    cells = outputs.argmax(dim=1) * n_targets + labels
    return torch.bincount(cells, minlength=n_sources * n_targets).view(n_sources, n_targets).cpu()


def probability_sums(
    outputs: Float[Tensor, "n s"], labels: Int[Tensor, " n"], *, n_targets: int
) -> Float[Tensor, "s c"]:
    """The sum of each source class's softmax probability over each target class's samples; 0 without samples."""
    sums = torch.zeros(n_targets, outputs.shape[1], dtype=torch.float64, device=outputs.device)
    return sums.index_add_(0, labels, outputs.double().softmax(dim=1)).T.cpu()


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
