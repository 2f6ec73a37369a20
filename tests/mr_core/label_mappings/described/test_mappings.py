"""Mappings onto several texts a class, worked out by hand on unit vectors."""

import pytest
import torch
from torch.nn import functional

from mr_core.errors import SpecError
from mr_core.label_mappings.descriptions import clip_templates, texts_of
from mr_core.label_mappings.probabilistic_reweighting.mapping import ProbabilisticReweightingMapping
from mr_core.label_mappings.probabilistic_reweighting.spec import ProbabilisticReweightingSpec
from mr_core.label_mappings.residual.mapping import ResidualMapping
from mr_core.label_mappings.residual.spec import ResidualSpec
from mr_core.label_mappings.template.mapping import TemplateMapping
from mr_core.label_mappings.template.spec import TemplateSpec
from mr_core.label_mappings.text.spec import TextSpec

C, M, D = 3, 4, 6
SIZES = {"n_targets": C, "n_texts": M, "width": D}


def _texts():
    return functional.normalize(torch.randn(C, M, D, generator=torch.Generator().manual_seed(0)), dim=2)


def _outputs(n=30):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(1))


def _named():
    return [[f"text {m} of {c}" for m in range(M)] for c in range(C)]


LABELS = torch.arange(30) % C


def test_the_templates_are_clips_and_one_more():
    templates = clip_templates()
    assert len(templates) == len(set(templates)) == 81
    assert all(template.count("{}") == 1 for template in templates)
    assert {"a bad photo of a {}.", "itap of a {}.", "This is a photo of a {}."} <= set(templates)


def test_underscores_are_spaces():
    assert texts_of(("a {}.", "the {}!"), ["polar_bear"]) == [["a polar bear.", "the polar bear!"]]


@pytest.mark.parametrize("template", ["a {weird} photo of {}", "50% } {}", "{ {}", "{{}}"])
def test_other_braces_stay_as_they_are(template, tiny_backbone):
    assert texts_of((template,), ["cat"]) == [[template.replace("{}", "cat")]]
    mapping = TextSpec(template=template).build(tiny_backbone, ("cat", "dog"))
    assert torch.equal(mapping.text_embeddings[0], tiny_backbone.encode_text([template.replace("{}", "cat")])[0])


def test_the_parts_of_a_count_are_the_whole(monkeypatch):
    texts, outputs = _texts(), _outputs()
    found = []
    for rows in (4, 256):
        monkeypatch.setattr("mr_core.label_mappings.template.mapping._ROWS", rows)
        mapping = TemplateMapping(TemplateSpec(), **SIZES, embed=lambda: texts, texts=_named)
        mapping.fit(outputs, LABELS)
        found.append(mapping.chosen.tolist())
    assert found[0] == found[1]


def test_the_texts_of_all_causes_together_are_limited():
    with pytest.raises(SpecError, match="1620 templates x 1234 classes are 1999080 texts, at most 100000"):
        ProbabilisticReweightingSpec(causes=("clip",) * 20).check([str(i) for i in range(1234)])


def test_more_texts_than_are_embedded_are_refused(tiny_backbone):
    with pytest.raises(SpecError, match="81 templates x 2000 classes are 162000 texts, at most 100000"):
        TemplateSpec().build(tiny_backbone, [str(i) for i in range(2000)])


@pytest.mark.parametrize("spec", [TemplateSpec(), ResidualSpec(), ProbabilisticReweightingSpec()])
def test_texts_are_embedded_once_and_travel_with_the_adapter(spec, tiny_backbone, monkeypatch):
    mapping = spec.build(tiny_backbone, ("ant", "bee"))
    outputs = torch.randn(20, tiny_backbone.width("image_text"), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 2
    mapping.fit(outputs, labels)

    def refuse(*_):
        raise AssertionError("texts were embedded again")

    monkeypatch.setattr(tiny_backbone, "encode_text", refuse)
    mapping.fit(outputs, labels)
    other = spec.build(tiny_backbone, ("ant", "bee"))
    other.load_state_dict(mapping.state_dict())
    assert torch.equal(other(outputs), mapping(outputs))


def test_template_gives_each_class_a_text_of_its_own_by_counts():
    texts, outputs = _texts(), _outputs()
    mapping = TemplateMapping(TemplateSpec(ties="first"), **SIZES, embed=lambda: texts, texts=_named)
    mapping.fit(outputs, LABELS)
    counts = torch.zeros(C * M, C)
    for output, label in zip(outputs, LABELS, strict=True):
        scores = [float(output @ texts[c, m]) for c in range(C) for m in range(M)]
        counts[scores.index(max(scores)), label] += 1
    expected = [-1] * C
    for _ in range(C):
        place = int(counts.argmax())
        source, target = divmod(place, C)
        expected[target] = source
        counts[source, :] = counts[:, target] = -1
    assert mapping.chosen.tolist() == expected
    assert mapping.chosen_texts() == [f"text {source % M} of {source // M}" for source in expected]
    for target, source in enumerate(expected):
        torch.testing.assert_close(mapping.text_embeddings[target], texts[source // M, source % M])


def test_residual_begins_at_the_mean_text_and_is_the_papers_head():
    texts, outputs = _texts(), _outputs()
    mapping = ResidualMapping(**SIZES, embed=lambda: texts)
    mapping.fit(outputs, LABELS)
    torch.testing.assert_close(mapping(outputs), outputs @ texts.mean(1).T)
    with torch.no_grad():
        mapping.weights.normal_(generator=torch.Generator().manual_seed(2))
        mapping.residual.normal_(generator=torch.Generator().manual_seed(3))
    weights = mapping.weights.exp() / mapping.weights.exp().sum(1, keepdim=True)
    f = torch.stack([sum(weights[c, m] * (outputs @ texts[c, m]) for m in range(M)) for c in range(C)], 1)
    torch.testing.assert_close(mapping(outputs), f @ (torch.eye(C) + mapping.residual))
    assert sum(parameter.numel() for parameter in mapping.parameters()) == C * M + C * C


def test_reweighting_counts_the_nearest_texts_of_the_true_class():
    texts, outputs = _texts(), _outputs()
    mapping = ProbabilisticReweightingMapping(top_k=2, **SIZES, embed=lambda: texts)
    torch.testing.assert_close(mapping.weights, torch.full((C, M), 1 / M))
    labels = LABELS.clamp(max=1)  # nothing of the third class
    mapping.fit(outputs, labels)
    counts = torch.zeros(C, M)
    for output, label in zip(outputs, labels.tolist(), strict=True):
        for near in sorted(range(M), key=lambda m: -float(output @ texts[label, m]))[:2]:
            counts[label, near] += 1
    expected = torch.cat([counts[:2] / counts[:2].sum(1, keepdim=True), torch.full((1, M), 1 / M)])
    torch.testing.assert_close(mapping.weights, expected)
    logits = torch.stack([sum(expected[c, m] * (outputs @ texts[c, m]) for m in range(M)) for c in range(C)], 1)
    torch.testing.assert_close(mapping(outputs), logits)
