import pytest
import torch
from pydantic import ValidationError

from mr_core.errors import SpecError
from mr_core.label_mappings.text.spec import TextSpec


def test_is_the_scaled_cosine_with_each_class_text(tiny_backbone):
    canvases = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    mapping = TextSpec(template="a drawing of a {}").build(tiny_backbone, ["small_cat", "dog"])
    found = mapping(tiny_backbone(canvases, "image_text"))
    texts = tiny_backbone.encode_text(["a drawing of a small cat", "a drawing of a dog"])
    images = tiny_backbone.source.projection(tiny_backbone(canvases))
    for i in range(5):
        for c in range(2):
            cosine = torch.nn.functional.cosine_similarity(images[i], texts[c], dim=0)
            assert float(found[i, c]) == pytest.approx(10 * float(cosine), abs=1e-5)


def test_refuses_a_backbone_without_text(tiny_backbone):
    tiny_backbone.source.image_text_width = None
    with pytest.raises(SpecError, match="no text tower"):
        TextSpec().build(tiny_backbone, ["a", "b"])


@pytest.mark.parametrize("template", ["no place", "{} and {}", ""])
def test_refuses_a_template_without_one_place(template: str):
    with pytest.raises(ValidationError, match="exactly one"):
        TextSpec(template=template)


def test_several_templates_are_averaged_and_scaled_to_unit_length(tiny_backbone):
    templates = ("a drawing of a {}", "a photo of the {}.", "{}")
    mapping = TextSpec(template=templates).build(tiny_backbone, ["small_cat", "dog"])
    for row, name in enumerate(("small cat", "dog")):
        mean = sum(tiny_backbone.encode_text([template.format(name)])[0] for template in templates) / 3
        torch.testing.assert_close(mapping.text_embeddings[row], mean / mean.norm())


def test_refuses_a_template_without_a_place_for_the_name():
    with pytest.raises(ValueError, match="exactly one"):
        TextSpec(template=("a photo of a {}.", "a photo"))
