"""Random label mapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Output
from mr_core.label_mappings.base import LabelMappingSpec

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.selection import SelectionMapping


class RandomSpec(LabelMappingSpec):
    """Source classes of its own for each target class, drawn at random; nothing is estimated (RLM).

    Elsayed et al., Adversarial Reprogramming of Neural Networks, 2019, arXiv:1806.11146, used an arbitrary map; the
    baseline RLM of Chen et al., 2023, arXiv:2211.11635.
    """

    kind: Literal["random"] = "random"
    sources_per_class: int = Field(
        1, ge=1, le=1000, description="Source classes of each target class, whose logits are averaged (many-to-one)."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of the draw, apart from the job's seed.")

    @property
    def reads(self) -> Output:
        return "source_logits"

    def sources_needed(self, n_targets: int) -> int:
        return n_targets * self.sources_per_class

    def build(self, backbone: Backbone, classes: Sequence[str]) -> SelectionMapping:
        import numpy as np

        from mr_core.label_mappings.selection import SelectionMapping

        n_sources = backbone.width("source_logits")
        mapping = SelectionMapping(
            n_sources=n_sources, n_targets=len(classes), sources_per_class=self.sources_per_class
        )
        drawn = np.random.default_rng(self.seed).permutation(n_sources)[: self.sources_needed(len(classes))]
        mapping.assign(drawn.reshape(len(classes), self.sources_per_class))
        return mapping
