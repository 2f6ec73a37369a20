"""Texts weighted by how often they are near."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.descriptions import Described

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.probabilistic_reweighting.mapping import ProbabilisticReweightingMapping


class ProbabilisticReweightingSpec(Described, LabelMappingSpec):
    """Texts of a class weighted by how often they are among the k nearest of its training images; counted each epoch.

    The probabilistic reweighting matrix of Cai et al., Understanding Model Reprogramming for CLIP via Decoupling Visual
    Prompts (DVP), 2025, arXiv:2506.01000, here for one prompt. The paper spends its first epoch on the first count;
    here it is taken before the first epoch, with the untrained prompt. A class without images weighs its texts alike.
    """

    kind: Literal["probabilistic_reweighting"] = "probabilistic_reweighting"
    top_k: int = Field(3, ge=1, le=1000, description="Nearest texts of its class that a training image counts for.")

    def build(self, backbone: Backbone, classes: Sequence[str]) -> ProbabilisticReweightingMapping:
        from mr_core.label_mappings.described import embedding
        from mr_core.label_mappings.descriptions import texts_of
        from mr_core.label_mappings.probabilistic_reweighting.mapping import ProbabilisticReweightingMapping

        return ProbabilisticReweightingMapping(
            top_k=self.top_k,
            n_targets=len(classes),
            n_texts=self.n_templates(len(classes)),
            width=backbone.width("image_text"),
            embed=embedding(backbone, lambda: texts_of(self.templates, classes)),
        )
