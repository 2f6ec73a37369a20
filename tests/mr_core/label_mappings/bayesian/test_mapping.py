from pathlib import Path

import numpy as np
import pytest
import torch

from mr_core.label_mappings.bayesian.mapping import BayesianMapping, counting_top, predicted_classes
from mr_core.label_mappings.bayesian_plus.spec import CANDIDATES, BayesianPlusSpec

REFERENCES = Path(__file__).parents[3] / "references"


def _mapping(n_sources: int, n_targets: int, count=predicted_classes, **fields) -> BayesianMapping:
    fields = {"smoothing": 1.0, "refit": "once", **fields}
    return BayesianMapping(n_sources=n_sources, n_targets=n_targets, count=count, **fields)


@pytest.mark.parametrize(
    ("key", "count"),
    [("bayesian", predicted_classes), ("bayesian_plus_k1", counting_top(1)), ("bayesian_plus_k3", counting_top(3))],
)
def test_equals_the_published_code(key, count):
    reference = np.load(REFERENCES / "label_mappings.npz")
    mapping = _mapping(60, 10, count)
    mapping.fit(torch.from_numpy(reference["source_logits"]), torch.from_numpy(reference["labels"]).long())
    np.testing.assert_allclose(mapping.omega.numpy(), reference[key], rtol=2e-5, atol=1e-8)


def test_is_the_smoothed_conditional_probability():
    """Three sources, two classes, worked out by hand: n = [[2, 1], [0, 1], [0, 0]], lambda 1."""
    outputs = torch.eye(3)[[0, 0, 0, 1]] * 9
    mapping = _mapping(3, 2)
    mapping.fit(outputs, torch.tensor([0, 0, 1, 1]))
    first, second = [2 / 4, 0, 0], [1 / 4, 1 / 2, 0]
    expected = torch.tensor([[a / sum(first), b / sum(second)] for a, b in zip(first, second, strict=True)])
    torch.testing.assert_close(mapping.omega, expected)
    torch.testing.assert_close(mapping(outputs), outputs @ expected)


@pytest.mark.parametrize("n_targets", [2, 3, 6, 7, 100, 1000])
@pytest.mark.parametrize("kind", ["bayesian", "bayesian_plus"])
def test_columns_sum_to_one_for_any_number_of_classes(kind, n_targets):
    published = max(1, int(0.15 * n_targets))
    mapping = _mapping(50, n_targets, predicted_classes if kind == "bayesian" else counting_top(published))
    labels = torch.arange(300) % n_targets  # of a thousand classes most have no sample
    mapping.fit(torch.randn(300, 50, generator=torch.Generator().manual_seed(0)), labels)
    assert torch.isfinite(mapping.omega).all()
    torch.testing.assert_close(mapping.omega.sum(0), torch.ones(n_targets))


def test_the_published_k_is_at_least_one(tiny_backbone):
    mapping = BayesianPlusSpec().build(tiny_backbone, ["a", "b"])
    outputs = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    mapping.fit(outputs, torch.arange(20) % 2)
    expected = _mapping(7, 2, counting_top(1))
    expected.fit(outputs, torch.arange(20) % 2)
    assert torch.equal(mapping.omega, expected.omega)


def test_validation_chooses_k(tiny_backbone):
    classes = ["a", "b", "c"]
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(60) % 3
    outputs = torch.randn(60, 7, generator=generator) + 2 * torch.randn(3, 7, generator=generator)[labels]
    held_out, answers = outputs[:30], labels[:30]
    mapping = BayesianPlusSpec(top_k="validation").build(tiny_backbone, classes)
    assert mapping.fits_on_validation
    mapping.fit(outputs[30:], labels[30:], validation=(held_out, answers))
    accuracies = {}
    for k in (k for k in CANDIDATES if k <= 7):
        other = _mapping(7, 3, counting_top(k))
        other.fit(outputs[30:], labels[30:])
        accuracies[k] = int((other(held_out).argmax(1) == answers).sum())
    assert int((mapping(held_out).argmax(1) == answers).sum()) == max(accuracies.values())
    best = min(k for k, right in accuracies.items() if right == max(accuracies.values()))
    expected = _mapping(7, 3, counting_top(best))
    expected.fit(outputs[30:], labels[30:])
    assert torch.equal(mapping.omega, expected.omega)
