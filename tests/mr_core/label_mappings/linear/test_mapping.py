import pytest
import torch
from pydantic import ValidationError

from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.label_mappings.linear.mapping import LinearMapping
from mr_core.label_mappings.linear.spec import LinearSpec
from mr_core.label_mappings.text.spec import TextSpec
from mr_core.probe import fit_probe


def test_is_an_affine_map():
    mapping = LinearMapping(width=3, n_targets=2, reads="embedding")
    with torch.no_grad():
        mapping.weight.copy_(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
        mapping.bias.copy_(torch.tensor([10.0, 20]))
    assert mapping(torch.tensor([[1.0, 0, -1]])).tolist() == [[8.0, 18.0]]


def test_starts_uniform():
    mapping = LinearMapping(width=3, n_targets=4, reads="embedding")
    assert mapping(torch.randn(5, 3)).softmax(1).unique().tolist() == [0.25]


def test_reads_what_the_spec_says(tiny_backbone):
    assert LinearSpec(on="embedding").build(tiny_backbone, ["a", "b"]).weight.shape == (2, 6)
    assert LinearSpec(on="source_logits").build(tiny_backbone, ["a", "b"]).weight.shape == (2, 7)


def test_starts_at_the_probe_of_its_outputs(tiny_backbone):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    outputs = torch.randn(60, 6, generator=generator) + 2 * torch.randn(3, 6, generator=generator)[labels]
    mapping = LinearSpec(start="probe").build(tiny_backbone, ["a", "b", "c"])
    assert mapping.refit == "once"
    mapping.fit(outputs[:40], labels[:40], validation=(outputs[40:], labels[40:]))
    probe = fit_probe(
        (outputs[:40].numpy(), labels[:40].numpy()),
        n_classes=3,
        validation=(outputs[40:].numpy(), labels[40:].numpy()),
    )
    torch.testing.assert_close(mapping(outputs).double(), probe.logits(outputs), rtol=1e-5, atol=1e-5)
    assert float((mapping(outputs).argmax(1) == labels).double().mean()) > 0.8
    assert all(parameter.requires_grad for parameter in mapping.parameters())


def test_from_zero_it_is_not_fitted(tiny_backbone):
    mapping = LinearSpec().build(tiny_backbone, ["a", "b"])
    mapping.fit(torch.randn(10, 6), torch.arange(10) % 2)
    assert not mapping.weight.any()


def test_starts_mapped_at_the_frequent_mapping(tiny_backbone):
    outputs = torch.randn(60, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    mapping = LinearSpec(on="source_logits", start="mapped").build(tiny_backbone, ["a", "b", "c"])
    frequent = FrequentSpec().build(tiny_backbone, ["a", "b", "c"])
    mapping.fit(outputs, labels)
    frequent.fit(outputs, labels)
    torch.testing.assert_close(mapping(outputs), frequent(outputs))
    assert LinearSpec(on="source_logits", start="mapped").sources_needed(9) == 9


def test_text_scores_start_mapped_at_zero_shot(tiny_backbone):
    names = ["ant", "polar_bear"]
    spec = LinearSpec(on="text_scores", start="mapped")
    mapping = spec.build(tiny_backbone, names)
    outputs = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    mapping.fit(outputs, torch.arange(12) % 2)
    texts = TextSpec(template="This is a photo of a {}.").build(tiny_backbone, names)
    torch.testing.assert_close(mapping(outputs), texts(outputs))
    assert mapping.weight.shape == (2, 2 * 81)
    with torch.no_grad():
        mapping.weight.normal_(generator=torch.Generator().manual_seed(1))
        mapping.bias.fill_(3.0)
    scores = torch.einsum("nd,cmd->ncm", outputs, mapping.texts).flatten(1)
    torch.testing.assert_close(mapping(outputs), scores @ mapping.weight.T + 3)


@pytest.mark.parametrize("fields", [{"start": "mapped"}, {"on": "text_scores", "start": "probe"}])
def test_a_start_that_does_not_go_with_what_it_reads_is_refused(fields):
    with pytest.raises(ValidationError, match="start"):
        LinearSpec(**fields)
