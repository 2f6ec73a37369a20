"""What every label mapping keeps to."""

import pytest
import torch
from pydantic import TypeAdapter

from mr_core.backbones.backbone import Backbone
from mr_core.label_mappings import LABEL_MAPPINGS
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.module import LabelMapping
from mr_core.registry import tagged_union

CLASSES = ("ant", "bee", "cat", "dog")


@pytest.fixture(params=LABEL_MAPPINGS.values(), ids=LABEL_MAPPINGS.keys())
def spec(request: pytest.FixtureRequest) -> LabelMappingSpec:
    return request.param()


def _outputs(mapping: LabelMapping, backbone: Backbone, n: int = 40) -> torch.Tensor:
    return torch.randn(n, backbone.width(mapping.reads), generator=torch.Generator().manual_seed(0))


def _fitted(spec: LabelMappingSpec, backbone: Backbone) -> LabelMapping:
    mapping = spec.build(backbone, CLASSES)
    mapping.fit(_outputs(mapping, backbone), torch.arange(40) % len(CLASSES))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in mapping.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return mapping


def test_gives_a_score_for_each_target_class(spec, tiny_backbone):
    mapping = spec.build(tiny_backbone, CLASSES)
    logits = mapping(_outputs(mapping, tiny_backbone))
    assert logits.shape == (40, len(CLASSES))
    assert logits.dtype == torch.float32


def test_is_its_matrix_but_for_a_constant_where_it_says_so(spec, tiny_backbone):
    mapping = _fitted(spec, tiny_backbone)
    outputs = _outputs(mapping, tiny_backbone)
    by_matrix = outputs @ mapping.matrix() + mapping(torch.zeros_like(outputs[:1]))
    assert torch.allclose(mapping(outputs), by_matrix, rtol=1e-5, atol=1e-5) == mapping.is_linear


def test_gradients_reach_every_parameter_and_the_outputs(spec, tiny_backbone):
    mapping = _fitted(spec, tiny_backbone)
    outputs = _outputs(mapping, tiny_backbone).requires_grad_()
    mapping(outputs).square().sum().backward()
    assert outputs.grad is not None
    assert outputs.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in mapping.parameters())


def test_fit_does_not_depend_on_the_order_of_samples(spec, tiny_backbone):
    mapping = spec.build(tiny_backbone, CLASSES)
    outputs, labels = _outputs(mapping, tiny_backbone), torch.arange(40) % len(CLASSES)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    other = spec.build(tiny_backbone, CLASSES)
    mapping.fit(outputs, labels)
    other.fit(outputs[order], labels[order])
    assert torch.equal(mapping.matrix(), other.matrix())


def test_tallies_of_parts_are_as_good_as_a_fit(spec, tiny_backbone):
    if "from_training" not in str(type(spec).model_json_schema()["properties"].get("refit")):
        with pytest.raises(NotImplementedError, match="sums over samples"):
            LabelMapping.tally(spec.build(tiny_backbone, CLASSES), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
        return
    mapping, other = (spec.build(tiny_backbone, CLASSES) for _ in range(2))
    outputs, labels = _outputs(mapping, tiny_backbone), torch.arange(40) % len(CLASSES)
    mapping.fit(outputs, labels)
    parts = (slice(0, 3), slice(3, 40))  # a class is missing from the first
    other.fit_tally(sum(other.tally(outputs[part], labels[part]) for part in parts))
    torch.testing.assert_close(other.matrix(), mapping.matrix())


def test_fit_bears_a_class_without_samples(spec, tiny_backbone):
    mapping = spec.build(tiny_backbone, CLASSES)
    outputs = _outputs(mapping, tiny_backbone)
    mapping.fit(outputs, torch.arange(40) % (len(CLASSES) - 1))
    logits = mapping(outputs)
    assert logits.shape == (40, len(CLASSES))
    assert torch.isfinite(logits).all()


def test_spec_and_state_survive_a_round_trip(spec, tiny_backbone):
    adapter = TypeAdapter(tagged_union(LABEL_MAPPINGS))
    assert adapter.validate_json(adapter.dump_json(spec)) == spec
    mapping, other = _fitted(spec, tiny_backbone), spec.build(tiny_backbone, CLASSES)
    other.load_state_dict(mapping.state_dict())
    outputs = _outputs(mapping, tiny_backbone)
    assert torch.equal(other(outputs), mapping(outputs))
