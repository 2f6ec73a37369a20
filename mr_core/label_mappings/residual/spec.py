"""Weighted texts with a residual between classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.descriptions import Described

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.residual.mapping import ResidualMapping


class ResidualSpec(Described, LabelMappingSpec):
    """Texts of a class weighted by a trained softmax, then a trained residual that mixes classes: `z = f (I + E)`.

    The RVP of the line of work after decoupled visual prompts (Cai et al., 2025, arXiv:2506.01000), `n_targets *
    (templates + n_targets)` parameters. It begins as the mean of the texts, with no residual. The embeddings are not
    scaled to unit length again after they were averaged.
    """

    kind: Literal["residual"] = "residual"

    def build(self, backbone: Backbone, classes: Sequence[str]) -> ResidualMapping:
        from mr_core.label_mappings.described import embedding
        from mr_core.label_mappings.descriptions import texts_of
        from mr_core.label_mappings.residual.mapping import ResidualMapping

        return ResidualMapping(
            n_targets=len(classes),
            n_texts=self.n_templates(len(classes)),
            width=backbone.width("image_text"),
            embed=embedding(backbone, lambda: texts_of(self.templates, classes)),
        )
