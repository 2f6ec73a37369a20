from pathlib import Path

import numpy as np
import pytest
import torch

from mr_core.errors import SpecError
from mr_core.label_mappings.frequent.mapping import (
    FrequentMapping,
    greedy_assignment,
    mean_probabilities,
    prediction_counts,
)

REFERENCES = Path(__file__).parents[3] / "references"


def test_equals_the_published_code():
    reference = np.load(REFERENCES / "label_mappings.npz")
    mapping = FrequentMapping(n_sources=60, n_targets=10, ties="first")
    mapping.fit(torch.from_numpy(reference["source_logits"]), torch.from_numpy(reference["labels"]).long())
    assert mapping.source_of_target.tolist() == reference["frequent"].tolist()


def test_counts_predictions_by_class():
    outputs = torch.tensor([[9.0, 0, 0], [0, 9, 0], [9, 0, 0], [0, 0, 9]])
    counts = prediction_counts(outputs, torch.tensor([0, 0, 1, 1]), n_targets=2)
    assert counts.tolist() == [[1, 1], [1, 0], [0, 1]]


def _greedy_by_hand(scores: list[list[float]]) -> list[int]:
    """Every pair in order of score, then of source, then of target; taken where both are free."""
    pairs = sorted(
        ((-score, source, target) for source, row in enumerate(scores) for target, score in enumerate(row)),
    )
    chosen: dict[int, int] = {}
    for _, source, target in pairs:
        if target not in chosen and source not in chosen.values():
            chosen[target] = source
    return [chosen[target] for target in range(len(scores[0]))]


@pytest.mark.parametrize("seed", range(20))
def test_is_greedy_and_injective(seed: int):
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 4, size=(9, 5))
    ties = generator.random((9, 5))
    for tie_breaks, scores in ((None, counts.astype(float)), (ties, counts + ties / 2)):
        chosen = greedy_assignment(counts, tie_breaks)
        assert chosen.tolist() == _greedy_by_hand(scores.tolist())
        assert len(set(chosen.tolist())) == 5


def test_equal_counts_go_to_the_larger_mean_probability():
    outputs = torch.tensor([[5.0, 4.9, 0.0], [0.0, 4.9, 5.0]])
    mapping = FrequentMapping(n_sources=3, n_targets=2, ties="probability")
    mapping.fit(outputs, torch.tensor([0, 0]))
    assert int(mapping.source_of_target[0]) != 1  # most probable in the mean, but never predicted
    probabilities = mean_probabilities(outputs, torch.tensor([0, 0]), n_targets=2)
    np.testing.assert_allclose(probabilities[:, 0], outputs.double().softmax(1).mean(0).numpy())
    assert probabilities[:, 1].tolist() == [0, 0, 0]


def test_takes_a_thousand_classes():
    outputs = torch.randn(3000, 1000, generator=torch.Generator().manual_seed(0))
    mapping = FrequentMapping(n_sources=1000, n_targets=1000, ties="probability")
    mapping.fit(outputs, torch.arange(3000) % 1000)
    assert sorted(mapping.source_of_target.tolist()) == list(range(1000))


def test_refuses_more_target_than_source_classes():
    with pytest.raises(SpecError, match="11 target classes but 10 source classes"):
        FrequentMapping(n_sources=10, n_targets=11, ties="first")
