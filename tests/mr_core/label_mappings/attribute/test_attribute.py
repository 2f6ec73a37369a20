"""The nearest attributes of each class, against loops over samples and sentences."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from mr_core.errors import KernelError, SpecError
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.label_mappings.attribute.mapping import AttributeMapping
from mr_core.label_mappings.attribute.spec import AttributeSpec
from mr_core.ntk import tangent_kernel
from mr_core.ntk.sandwich import source_kernel
from mr_core.reprogrammed import ReprogrammedModel

C, D = 3, 6
LABELS = torch.arange(20) % C
CLASSES = ("ant", "bee")
TEXTS = {name: tuple(f"{name} number {i}" for i in range(5)) for name in CLASSES}


def _unit(*shape, seed):
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_is_the_papers_weighted_mean_of_the_nearest():
    sets, weights = [_unit(C, 5, D, seed=0), _unit(C, 4, D, seed=1)], (0.3, 0.7)
    mapping = AttributeMapping(
        top_k=2, weights=weights, n_targets=C, n_texts=[5, 4], width=D, embed=[lambda: sets[0], lambda: sets[1]]
    )
    outputs = torch.randn(20, D, generator=torch.Generator().manual_seed(2))
    mapping.fit(outputs, LABELS)
    for output, logits in zip(outputs, mapping(outputs), strict=True):
        for target in range(C):
            nearest = [sorted((float(output @ t) for t in texts[target]), reverse=True)[:2] for texts in sets]
            expected = sum(weight * sum(scores) / 2 for weight, scores in zip(weights, nearest, strict=True))
            assert float(logits[target]) == pytest.approx(expected, abs=1e-5)


def test_with_every_sentence_among_the_nearest_it_is_its_matrix(tiny_backbone):
    mapping = AttributeSpec(descriptive=TEXTS, distinctive=TEXTS, top_k=5).build(tiny_backbone, CLASSES)
    outputs = torch.randn(20, tiny_backbone.width("image_text"), generator=torch.Generator().manual_seed(0))
    mapping.fit(outputs, LABELS % 2)
    torch.testing.assert_close(mapping(outputs), outputs @ mapping.matrix())


def test_the_drawn_sentences_are_those_of_the_seed_and_travel_with_the_adapter(tiny_backbone, monkeypatch):
    spec = AttributeSpec(descriptive=TEXTS, texts_per_class=3, seed=4)
    (chosen,) = spec.sentences(CLASSES)
    assert chosen == spec.sentences(CLASSES)[0]
    assert [len(set(of)) for of in chosen] == [3, 3]
    assert all(text in TEXTS[name] for name, of in zip(CLASSES, chosen, strict=True) for text in of)
    assert chosen != spec.model_copy(update={"seed": 5}).sentences(CLASSES)[0]
    mapping = spec.build(tiny_backbone, CLASSES)
    outputs = torch.randn(8, tiny_backbone.width("image_text"), generator=torch.Generator().manual_seed(0))
    mapping.fit(outputs, torch.arange(8) % 2)
    other = spec.build(tiny_backbone, CLASSES)
    monkeypatch.setattr(tiny_backbone, "encode_text", lambda _: pytest.fail("texts were embedded again"))
    other.load_state_dict(mapping.state_dict())
    other.fit(outputs, torch.arange(8) % 2)
    assert torch.equal(other(outputs), mapping(outputs))


def test_templates_stand_in_and_every_class_has_the_same_ones():
    (chosen,) = AttributeSpec(descriptive=("a {}.", "the {}!", "one {}?"), texts_per_class=2).sentences(CLASSES)
    assert [text.replace("ant", "bee") for text in chosen[0]] == chosen[1]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"ant": ["x"] * 3}, "no texts for 'bee'; expected some for each of 2 classes"),
        ({"ant": ["x"] * 3, "bee": ["x"] * 3, "cow": ["x"] * 3}, "texts for 'cow', which the dataset has no classes"),
        ({"ant": ["x"] * 3, "bee": ["x"] * 2}, "2 texts for 'bee'; expected at least 3"),
    ],
)
def test_a_file_that_does_not_fit_the_classes_is_refused(texts, message):
    with pytest.raises(SpecError, match=message) as refused:
        AttributeSpec(distinctive=texts).check(CLASSES)
    assert refused.value.param == "label_mapping.distinctive"


@pytest.mark.parametrize("texts", [{"ant": []}, {"ant": [""]}, {"ant": "one text"}, "clips"])
def test_what_is_no_set_of_texts_is_refused(texts):
    with pytest.raises(ValidationError):
        AttributeSpec(descriptive=texts)


def test_its_kernel_takes_the_general_derivative_and_no_sandwich(reprogrammed_attributes):
    model, images = reprogrammed_attributes
    kernel = tangent_kernel(model, images).total().dense()
    jacobian = _rows(model, images)
    torch.testing.assert_close(kernel, jacobian @ jacobian.T, rtol=1e-9, atol=1e-12)
    source = source_kernel(model.input_transform, model.backbone, images, reads="image_text")
    with pytest.raises(KernelError, match="not linear"):
        source.mapped(model.label_mapping)


def _rows(model, images):
    rows = []
    for image in images:
        logits = model(image[None])[0]
        for index in range(len(logits)):
            gradients = torch.autograd.grad(logits[index], model.adapter_parameters(), retain_graph=True)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)


@pytest.fixture
def reprogrammed_attributes(tiny_backbone):
    names = ("ant", "bee", "cow", "dog", "eel")  # more classes than the text space has dimensions
    texts = {name: tuple(f"{name} number {i}" for i in range(5)) for name in names}
    mapping = AttributeSpec(descriptive=texts, top_k=2).build(tiny_backbone, names)
    transform = PaddingSpec(image_size=6).build(tiny_backbone.preprocessing)
    model = ReprogrammedModel(transform, tiny_backbone, mapping).double()
    images = torch.rand(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mapping.fit(model.backbone_outputs(images).detach(), torch.arange(4))
    return model, images
