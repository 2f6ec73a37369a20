from functools import partial

import pytest
import torch

from mr_core.jobs.diagnose.baselines import cheap_baselines, initial_logits_without, linear_probe_accuracy
from mr_core.label_mappings.frequent.assignment import choose_by_tally, tally_predictions
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.label_mappings.selection import SelectionMapping

LABELS = torch.arange(12) % 3
FOLDS = [torch.arange(start, 12, 4) for start in range(4)]


def test_linear_probe_separates_what_is_separable_and_only_that():
    noise = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    apart = noise * 0.05 + torch.eye(5)[LABELS]
    assert linear_probe_accuracy(apart, LABELS, FOLDS, n_classes=3) == 1
    assert linear_probe_accuracy(noise, LABELS, FOLDS, n_classes=3) < 0.7


def test_the_mapping_is_fitted_without_the_fold():
    outputs = torch.eye(7)[LABELS]
    outputs[0] = torch.eye(7)[6]  # the only sample that argues for source 6
    counted = {
        "choose": partial(choose_by_tally, counting=FrequentSpec()),
        "tally": partial(tally_predictions, n_targets=3),
    }
    mapping = SelectionMapping(n_sources=7, n_targets=3, **counted)
    logits = initial_logits_without(mapping, outputs, LABELS, refits=True)
    expected = SelectionMapping(n_sources=7, n_targets=3, **counted)
    expected.fit(outputs[1:], LABELS[1:])
    torch.testing.assert_close(logits(torch.tensor([0])), expected(outputs))
    assert mapping.source_of_target.tolist() == [0, 1, 2]  # its own state is left alone


def test_baselines_name_what_there_is_not(tiny_backbone):
    plain = {name: torch.rand(12, tiny_backbone.width(name)) for name in ("embedding", "source_logits")}
    found = cheap_baselines(plain, LABELS, FOLDS, None, backbone=tiny_backbone, classes=["a", "b", "c"])
    assert found["majority"] == pytest.approx(1 / 3)
    assert found["mapping_only"] is None
    assert found["zero_shot"] is None
