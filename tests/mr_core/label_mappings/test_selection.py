import numpy as np
import pytest
import torch

from mr_core.errors import SpecError
from mr_core.label_mappings.random.spec import RandomSpec
from mr_core.label_mappings.selection import SelectionMapping


def test_averages_the_logits_of_the_sources_of_a_class():
    mapping = SelectionMapping(n_sources=6, n_targets=2, sources_per_class=3)
    mapping.assign(np.array([[5, 0, 2], [1, 3, 4]]))
    outputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    by_hand = torch.stack([(outputs[:, 0] + outputs[:, 2] + outputs[:, 5]) / 3, outputs[:, [1, 3, 4]].mean(1)], 1)
    torch.testing.assert_close(mapping(outputs), by_hand)
    torch.testing.assert_close(outputs @ mapping.matrix(), by_hand)


def test_refuses_more_target_than_source_classes():
    with pytest.raises(SpecError, match="11 target classes but 10 source classes"):
        SelectionMapping(n_sources=10, n_targets=11)
    with pytest.raises(SpecError, match="each target class 3 of its own") as refused:
        SelectionMapping(n_sources=10, n_targets=4, sources_per_class=3)
    assert refused.value.param == "label_mapping.sources_per_class"


def test_random_draws_distinct_sources_by_its_own_seed(tiny_backbone):
    classes = ["a", "b", "c"]
    chosen = [RandomSpec(seed=seed, sources_per_class=2).build(tiny_backbone, classes) for seed in (0, 0, 1, 2)]
    indices = [mapping.source_of_target.flatten().tolist() for mapping in chosen]
    assert indices[0] == indices[1]
    assert len({tuple(row) for row in indices}) > 1
    assert all(len(set(row)) == 6 for row in indices)
    before = chosen[0].source_of_target.clone()
    chosen[0].fit(torch.randn(9, 7), torch.arange(9) % 3)
    assert torch.equal(chosen[0].source_of_target, before)
