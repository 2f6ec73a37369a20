"""Frequent mapping onto texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.descriptions import Described

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.template.mapping import TemplateMapping


class TemplateSpec(Described, LabelMappingSpec):
    """Every template with every class name is a source class; each target class takes the one most often predicted.

    Chen et al., Understanding and Improving Visual Prompting, 2023, arXiv:2211.11635, section 4.3, for CLIP. A class
    may be given a text with another class' name, if its images are nearest to that: the name then is only a slot. The
    result tells the chosen text of each class.
    """

    kind: Literal["template"] = "template"
    refit: Literal["once", "each_epoch"] = Field(
        "each_epoch", description="Chosen before every epoch with the current prompt (iterative), or once (frequent)."
    )
    ties: Literal["probability", "first"] = Field(
        "probability", description="Equal counts go to the larger mean probability, or to the first text."
    )
    assignment: Literal["greedy", "hungarian"] = Field(
        "greedy", description="Largest count first, as published; or the assignment of the largest sum of counts."
    )

    def build(self, backbone: Backbone, classes: Sequence[str]) -> TemplateMapping:
        from mr_core.label_mappings.described import embedding
        from mr_core.label_mappings.descriptions import texts_of
        from mr_core.label_mappings.template.mapping import TemplateMapping

        return TemplateMapping(
            self,
            n_targets=len(classes),
            n_texts=self.n_templates(len(classes)),
            width=backbone.width("image_text"),
            embed=embedding(backbone, lambda: texts_of(self.templates, classes)),
            texts=lambda: texts_of(self.templates, classes),
        )
