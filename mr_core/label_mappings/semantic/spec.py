"""Source classes by the likeness of names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import MINI_CLIP, Output
from mr_core.errors import SpecError
from mr_core.label_mappings.base import LabelMappingSpec

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.selection import SelectionMapping


class SemanticSpec(LabelMappingSpec):
    """Source classes of its own for each target class, those whose names are nearest to its own; no image is looked at.

    The semantic mapping of Tsao et al., AutoVP, 2024, arXiv:2310.08381: cosines of embedded class names, the target
    classes choosing in turn. Names are embedded by the backbone's text tower; by that of builtin/mini-clip, which knows
    few words well, where it has none.
    """

    kind: Literal["semantic"] = "semantic"
    sources_per_class: int = Field(
        1, ge=1, le=1000, description="Source classes of each target class, whose logits are averaged (many-to-one)."
    )

    @property
    def reads(self) -> Output:
        return "source_logits"

    def sources_needed(self, n_targets: int) -> int:
        return n_targets * self.sources_per_class

    def build(self, backbone: Backbone, classes: Sequence[str]) -> SelectionMapping:
        from mr_core.label_mappings.selection import SelectionMapping
        from mr_core.label_mappings.semantic.names import choose_by_name

        n_sources = backbone.width("source_logits")
        if backbone.source_classes is None:
            raise SpecError(
                f"the source classes of {backbone.description.id} have no names: register it with `classes`, or take "
                "a mapping that counts, such as frequent",
                param="label_mapping.kind",
            )
        return SelectionMapping(
            n_sources=n_sources,
            n_targets=len(classes),
            sources_per_class=self.sources_per_class,
            choose=lambda _tally: choose_by_name(
                backbone, classes, sources_per_class=self.sources_per_class, names_by=MINI_CLIP
            ),
            refit="once",
        )
