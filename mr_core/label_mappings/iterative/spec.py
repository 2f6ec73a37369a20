"""Frequent label mapping, estimated anew each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.frequent.spec import Ties

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.frequent.mapping import FrequentMapping


class IterativeSpec(LabelMappingSpec):
    """The frequent mapping, estimated again before every epoch with the current prompt (ILM).

    Chen et al., Understanding and Improving Visual Prompting: A Label-Mapping Perspective, 2023. arXiv:2211.11635
    """

    kind: Literal["iterative"] = "iterative"
    ties: Ties = Field("probability", description="As for `frequent`.")

    def build(self, backbone: Backbone, classes: Sequence[str]) -> FrequentMapping:
        from mr_core.label_mappings.frequent.mapping import FrequentMapping

        return FrequentMapping(
            n_sources=backbone.width("source_logits"), n_targets=len(classes), ties=self.ties, refit="each_epoch"
        )
