from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from mr_core.label_mappings.frequent.assignment import (
    choose_by_tally,
    greedy_assignment,
    optimal_assignment,
    prediction_counts,
    probability_sums,
    tally_predictions,
)
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.label_mappings.selection import SelectionMapping

REFERENCES = Path(__file__).parents[3] / "references"


def _mapping(n_sources: int, n_targets: int, **fields) -> SelectionMapping:
    spec = FrequentSpec(**fields)
    return SelectionMapping(
        n_sources=n_sources,
        n_targets=n_targets,
        sources_per_class=spec.sources_per_class,
        choose=partial(choose_by_tally, counting=spec),
        tally=partial(tally_predictions, n_targets=n_targets),
    )


def test_equals_the_published_code():
    reference = np.load(REFERENCES / "label_mappings.npz")
    mapping = _mapping(60, 10, ties="first")
    mapping.fit(torch.from_numpy(reference["source_logits"]), torch.from_numpy(reference["labels"]).long())
    assert mapping.source_of_target.tolist() == reference["frequent"].tolist()


def test_three_sources_a_class_equal_the_published_code():
    reference = np.load(REFERENCES / "label_mappings.npz")
    mapping = _mapping(60, 10, ties="first", sources_per_class=3)
    mapping.fit(torch.from_numpy(reference["source_logits"]), torch.from_numpy(reference["labels"]).long())
    assert ((mapping.matrix() > 0).int().numpy() == reference["frequent_three_sources"]).all()


def test_counts_predictions_by_class():
    outputs = torch.tensor([[9.0, 0, 0], [0, 9, 0], [9, 0, 0], [0, 0, 9]])
    counts = prediction_counts(outputs, torch.tensor([0, 0, 1, 1]), n_targets=2)
    assert counts.tolist() == [[1, 1], [1, 0], [0, 1]]


def _greedy_by_hand(scores: list[list[float]], sources_per_class: int) -> list[list[int]]:
    """Every pair in order of score, then of source, then of target; taken where both are free."""
    pairs = sorted(
        ((-score, source, target) for source, row in enumerate(scores) for target, score in enumerate(row)),
    )
    chosen: dict[int, list[int]] = {target: [] for target in range(len(scores[0]))}
    taken: set[int] = set()
    for _, source, target in pairs:
        if len(chosen[target]) < sources_per_class and source not in taken:
            chosen[target].append(source)
            taken.add(source)
    return [chosen[target] for target in range(len(scores[0]))]


@pytest.mark.parametrize("sources_per_class", [1, 2])
@pytest.mark.parametrize("seed", range(10))
def test_is_greedy_and_no_source_is_shared(seed: int, sources_per_class: int):
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 4, size=(11, 5)).astype(float)
    for scores in (counts, counts + generator.random((11, 5)) / 2):
        chosen = greedy_assignment(scores, sources_per_class)
        assert chosen.tolist() == _greedy_by_hand(scores.tolist(), sources_per_class)
        assert len(set(chosen.flatten().tolist())) == 5 * sources_per_class


@pytest.mark.parametrize("seed", range(5))
def test_the_hungarian_assignment_has_the_largest_sum(seed: int):
    scores = np.random.default_rng(seed).integers(0, 9, size=(6, 4)).astype(float)
    chosen = optimal_assignment(scores, 1)[:, 0]
    best = max(sum(scores[source, target] for target, source in enumerate(p)) for p in permutations(range(6), 4))
    assert scores[chosen, range(4)].sum() == best
    assert len(set(chosen.tolist())) == 4


def test_the_hungarian_assignment_beats_greed_where_greed_is_wrong():
    scores = np.array([[10.0, 9.0], [9.0, 0.0]])
    assert greedy_assignment(scores, 1)[:, 0].tolist() == [0, 1]  # 10 + 0
    assert optimal_assignment(scores, 1)[:, 0].tolist() == [1, 0]  # 9 + 9


def test_equal_counts_go_to_the_larger_mean_probability():
    outputs = torch.tensor([[5.0, 4.9, 0.0], [0.0, 4.9, 5.0]])
    mapping = _mapping(3, 2)
    mapping.fit(outputs, torch.tensor([0, 0]))
    assert int(mapping.source_of_target[0]) != 1  # most probable in the mean, but never predicted
    probabilities = probability_sums(outputs, torch.tensor([0, 0]), n_targets=2)
    np.testing.assert_allclose(probabilities[:, 0], outputs.double().softmax(1).sum(0).numpy())
    assert probabilities[:, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("assignment", ["greedy", "hungarian"])
def test_takes_a_thousand_classes(assignment: str):
    outputs = torch.randn(3000, 1000, generator=torch.Generator().manual_seed(0))
    mapping = _mapping(1000, 1000, assignment=assignment)
    mapping.fit(outputs, torch.arange(3000) % 1000)
    assert sorted(mapping.source_of_target.tolist()) == list(range(1000))


def test_the_optimal_assignment_has_the_largest_sum_of_counts_whatever_the_probabilities():
    """Two assignments equal in five classes, 5 against 4 counts in the sixth; the probabilities speak for the other."""
    n = 6
    counts, sums = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    for target in range(n):
        counts[target, target] = 5
        counts[(target + 1) % n, target] = 4 if target == 0 else 5
        sums[target, target] = 4.4
        sums[(target + 1) % n, target] = 5.6
    spec = FrequentSpec(assignment="hungarian")
    chosen = choose_by_tally(torch.stack([counts, sums]), counting=spec)[:, 0]
    assert counts[chosen, range(n)].sum() == 30
    level = counts.clamp(max=4)  # of equal counts the probabilities decide
    chosen = choose_by_tally(torch.stack([level, sums]), counting=spec)[:, 0]
    assert chosen.tolist() == [1, 2, 3, 4, 5, 0]
