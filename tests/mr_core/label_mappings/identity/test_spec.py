import pytest
import torch

from mr_core.errors import SpecError
from mr_core.label_mappings.identity.spec import IdentitySpec


def test_class_i_reads_class_i(tiny_backbone):
    mapping = IdentitySpec().build(tiny_backbone, ("a", "b", "c"))
    outputs = torch.rand(4, 7)
    assert torch.equal(mapping(outputs), outputs[:, :3])
    mapping.fit(outputs, torch.zeros(4, dtype=torch.int64))
    assert mapping.source_of_target.tolist() == [0, 1, 2]


def test_needs_as_many_source_classes(tiny_backbone):
    with pytest.raises(SpecError, match="8 target classes but 7 source classes"):
        IdentitySpec().build(tiny_backbone, tuple("abcdefgh"))
