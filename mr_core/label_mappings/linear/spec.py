"""A trained linear head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Output
from mr_core.label_mappings.base import LabelMappingSpec

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.linear.mapping import LinearMapping


class LinearSpec(LabelMappingSpec):
    """A trained linear layer with bias, `n_targets (d + 1)` parameters, on the embedding or on the source logits.

    The fully connected mapping of AutoVP (Tsao et al., 2024, arXiv:2310.08381) reads source logits.
    """

    kind: Literal["linear"] = "linear"
    on: Literal["embedding", "source_logits"] = Field("embedding", description="The backbone output it reads.")
    start: Literal["zero", "probe"] = Field(
        "zero",
        description="Weights before training: all zero; or those of logistic regression on the outputs for the "
        "training images in the untrained input transform, its penalty chosen on validation images. Under a "
        "watermark, which begins as the image alone, on the embedding, that is the linear probe itself (of square "
        "images; oblong ones are stretched under a prompt and cropped for the baseline).",
    )

    @property
    def reads(self) -> Output:
        return self.on

    def build(self, backbone: Backbone, classes: Sequence[str]) -> LinearMapping:
        from mr_core.label_mappings.linear.mapping import LinearMapping

        return LinearMapping(
            width=backbone.width(self.on), n_targets=len(classes), reads=self.on, starts_at_probe=self.start == "probe"
        )
