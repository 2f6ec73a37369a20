"""Frequent label mapping, estimated anew each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.frequent.spec import Counting

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.selection import SelectionMapping


class IterativeSpec(Counting, LabelMappingSpec):
    """The frequent mapping, estimated again before every epoch with the current prompt (ILM).

    Chen et al., Understanding and Improving Visual Prompting: A Label-Mapping Perspective, 2023. arXiv:2211.11635
    """

    kind: Literal["iterative"] = "iterative"
    refit: Literal["each_epoch", "from_training"] = Field(
        "each_epoch",
        description="By a pass over the training images before every epoch; or after it, from the outputs that the "
        "epoch itself saw (arXiv:2410.24018, published code), which saves the pass.",
    )

    def build(self, backbone: Backbone, classes: Sequence[str]) -> SelectionMapping:
        return self.selection(backbone, len(classes), refit=self.refit)
