"""Source classes by the likeness of names."""

import numpy as np
import pytest
import torch

from mr_core.backbones.loading import load_backbone
from mr_core.errors import SpecError
from mr_core.label_mappings.semantic.names import in_turn
from mr_core.label_mappings.semantic.spec import SemanticSpec


def test_the_classes_choose_in_turn_and_none_twice():
    likeness = np.array([[0.9, 0.8, 0.1, 0.0], [0.95, 0.7, 0.2, 0.3]])
    assert in_turn(likeness, sources_per_class=2).tolist() == [[0, 2], [1, 3]]
    assert likeness[0, 0] == 0.9


def test_names_find_their_like():
    backbone = load_backbone("builtin/mini-clip")
    names = [backbone.source_classes[i] for i in (7, 2, 11)]
    mapping = SemanticSpec().build(backbone, [name.replace(" ", "_") for name in names])
    mapping.fit(torch.zeros(3, backbone.width("source_logits")), torch.arange(3))
    assert mapping.source_of_target.tolist() == [7, 2, 11]


def test_a_backbone_without_a_text_tower_has_its_names_read_by_the_built_in_one(tiny_backbone):
    tiny_backbone.source.image_text_width = None
    tiny_backbone.source_classes = ("apple", "bicycle", "cloud", "dog", "elephant", "forest", "guitar")
    mapping = SemanticSpec().build(tiny_backbone, ["guitar", "dog"])
    mapping.fit(torch.zeros(2, 7), torch.arange(2))
    assert mapping.source_of_target.tolist() == [6, 3]


def test_source_classes_without_names_are_refused(tiny_backbone):
    tiny_backbone.source_classes = None
    with pytest.raises(SpecError, match="have no names"):
        SemanticSpec().build(tiny_backbone, ["ant", "bee"])
