"""Class names through the backbone's text tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from mr_core.backbones.description import Output
from mr_core.label_mappings.base import LabelMappingSpec

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.text.mapping import TextMapping


def _names_the_class(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError(f"the template needs exactly one {{}} for the class name, found {template!r}")
    return template


Template = Annotated[str, StringConstraints(max_length=500), AfterValidator(_names_the_class)]


class TextSpec(LabelMappingSpec):
    """Target logits are scaled cosines with the embedded class names: CLIP's zero-shot head, nothing trained.

    Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021. arXiv:2103.00020,
    section 3.1.4 for ensembles of templates.
    """

    kind: Literal["text"] = "text"
    template: Template | Annotated[tuple[Template, ...], Field(min_length=1, max_length=200)] = Field(
        "a photo of a {}.",
        description="`{}` stands for the class name. Of several templates, a class is the mean of their unit "
        "embeddings, scaled to unit length again (prompt ensembling).",
    )

    @property
    def reads(self) -> Output:
        return "image_text"

    def build(self, backbone: Backbone, classes: Sequence[str]) -> TextMapping:
        from mr_core.label_mappings.text.mapping import TextMapping

        templates = (self.template,) if isinstance(self.template, str) else self.template
        return TextMapping.from_names(backbone, classes, templates=templates)
