"""Class names through the backbone's text tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from mr_core.label_mappings.base import LabelMappingSpec

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.text.mapping import TextMapping


class TextSpec(LabelMappingSpec):
    """Target logits are scaled cosines with the embedded class names: CLIP's zero-shot head, nothing trained.

    Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021. arXiv:2103.00020
    """

    kind: Literal["text"] = "text"
    template: str = Field("a photo of a {}.", max_length=500, description="`{}` stands for the class name.")

    @field_validator("template")
    @classmethod
    def _names_the_class(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError(f"the template needs exactly one {{}} for the class name, found {template!r}")
        return template

    def build(self, backbone: Backbone, classes: Sequence[str]) -> TextMapping:
        from mr_core.label_mappings.text.mapping import TextMapping

        return TextMapping.from_names(backbone, classes, template=self.template)
