"""Identity label mapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from mr_core.backbones.description import Output
from mr_core.label_mappings.base import LabelMappingSpec

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.selection import SelectionMapping


class IdentitySpec(LabelMappingSpec):
    """Target class i reads source class i; nothing is estimated, and further source classes are not read.

    The fixed linear output mapping of the tangent-kernel theory, arXiv:2506.00620. Classes are in the order of their
    names, so between different sets it is an arbitrary map.
    """

    kind: Literal["identity"] = "identity"

    @property
    def reads(self) -> Output:
        return "source_logits"

    def sources_needed(self, n_targets: int) -> int:
        return n_targets

    def build(self, backbone: Backbone, classes: Sequence[str]) -> SelectionMapping:
        from mr_core.label_mappings.selection import SelectionMapping

        return SelectionMapping(n_sources=backbone.width("source_logits"), n_targets=len(classes))
