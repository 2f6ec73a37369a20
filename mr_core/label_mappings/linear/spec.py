"""A trained linear head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from mr_core.backbones.description import Output
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.descriptions import Described, n_templates, texts_of

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.module import LabelMapping


class LinearSpec(LabelMappingSpec):
    """A trained linear layer with bias, `n_targets (d + 1)` parameters, on an output of the backbone.

    The fully connected mapping of AutoVP (Tsao et al., 2024, arXiv:2310.08381) reads source logits; of CLIP, those are
    the scores of 81 texts a class, from which it starts `mapped`, and the trainer's `clip_value` is 0.001.
    """

    kind: Literal["linear"] = "linear"
    on: Literal["embedding", "source_logits", "text_scores"] = Field(
        "embedding",
        description="What it reads: an output of the backbone, or the scaled cosines with the texts of the mapping "
        "`template`, 81 for each class.",
    )
    start: Literal["zero", "probe", "mapped"] = Field(
        "zero",
        description="Weights before training: all zero; or those of logistic regression on the outputs for the "
        "training images in the untrained input transform, its penalty chosen on validation images. Under a "
        "watermark, which begins as the image alone, on the embedding, that is the linear probe itself (of square "
        "images; oblong ones are stretched under a prompt and cropped for the baseline). `mapped`: each class begins "
        "as the source class that the mapping `frequent` gives it; of text scores as its text `This is a photo of a "
        "{}.`.",
    )

    @model_validator(mode="after")
    def _start_is_of_what_it_reads(self) -> LinearSpec:
        if self.on == "embedding" and self.start == "mapped":
            raise ValueError("start 'mapped' needs source classes: set on to 'source_logits' or 'text_scores'")
        if self.on == "text_scores" and self.start == "probe":
            raise ValueError("on text scores the start is 'zero' or 'mapped'; a probe reads the embedding")
        return self

    @property
    def reads(self) -> Output:
        return "image_text" if self.on == "text_scores" else self.on

    def sources_needed(self, n_targets: int) -> int:
        return n_targets if self.start == "mapped" and self.on == "source_logits" else 0

    def check(self, classes: Sequence[str]) -> None:
        if self.on == "text_scores":
            Described().n_templates(len(classes))

    def build(self, backbone: Backbone, classes: Sequence[str]) -> LabelMapping:
        from mr_core.label_mappings.described import embedding
        from mr_core.label_mappings.linear.mapping import LinearMapping
        from mr_core.label_mappings.linear.text_scores import TextScoresMapping

        self.check(classes)
        if self.on == "text_scores":
            return TextScoresMapping(
                n_targets=len(classes),
                n_texts=n_templates("clip"),
                width=backbone.width("image_text"),
                embed=embedding(backbone, lambda: texts_of("clip", classes)),
                starts_mapped=self.start == "mapped",
            )
        return LinearMapping(width=backbone.width(self.on), n_targets=len(classes), reads=self.on, start=self.start)
