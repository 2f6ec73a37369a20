"""Frequent label mapping, estimated once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.label_mappings.base import LabelMappingSpec

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.frequent.mapping import FrequentMapping

Ties = Literal["probability", "first"]


class FrequentSpec(LabelMappingSpec):
    """One source class for each target class, the most frequent first; estimated once, before training (FLM).

    Tsai et al., Transfer Learning without Knowing, 2020. arXiv:2007.08714. One-to-one and greedy as in
    Chen et al., 2023. arXiv:2211.11635
    """

    kind: Literal["frequent"] = "frequent"
    ties: Ties = Field(
        "probability",
        description="Equal counts go to the larger mean probability; `first` takes the lowest source index, "
        "as the published code does.",
    )

    def build(self, backbone: Backbone, classes: Sequence[str]) -> FrequentMapping:
        from mr_core.label_mappings.frequent.mapping import FrequentMapping

        return FrequentMapping(n_sources=backbone.width("source_logits"), n_targets=len(classes), ties=self.ties)
