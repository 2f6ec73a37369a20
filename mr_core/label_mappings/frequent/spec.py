"""Frequent label mapping, estimated once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Output
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.registry import MethodSpec

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.module import Refit
    from mr_core.label_mappings.selection import SelectionMapping


class Counting(MethodSpec):
    """How predictions are counted, and source classes handed out by the counts."""

    sources_per_class: int = Field(
        1, ge=1, le=1000, description="Source classes of each target class, whose logits are averaged (many-to-one)."
    )
    ties: Literal["probability", "first"] = Field(
        "probability",
        description="Equal counts go to the larger mean probability; `first` takes the lowest source index, "
        "as the published code does.",
    )
    assignment: Literal["greedy", "hungarian"] = Field(
        "greedy",
        description="Largest count first, as published; or the assignment of the largest sum of counts.",
    )

    @property
    def reads(self) -> Output:
        return "source_logits"

    def sources_needed(self, n_targets: int) -> int:
        return n_targets * self.sources_per_class

    def selection(self, backbone: Backbone, n_targets: int, *, refit: Refit) -> SelectionMapping:
        """The module that is fitted by these counts."""
        from functools import partial

        from mr_core.label_mappings.frequent.assignment import choose_by_tally, tally_predictions
        from mr_core.label_mappings.selection import SelectionMapping

        return SelectionMapping(
            n_sources=backbone.width("source_logits"),
            n_targets=n_targets,
            sources_per_class=self.sources_per_class,
            choose=partial(choose_by_tally, counting=self),
            tally=partial(tally_predictions, n_targets=n_targets),
            refit=refit,
        )


class FrequentSpec(Counting, LabelMappingSpec):
    """Source classes of its own for each target class, the most frequent first; estimated once, before training (FLM).

    Tsai et al., Transfer Learning without Knowing, 2020. arXiv:2007.08714. Greedy as in Chen et al., 2023,
    arXiv:2211.11635, one source a class unless `sources_per_class` says more.
    """

    kind: Literal["frequent"] = "frequent"

    def build(self, backbone: Backbone, classes: Sequence[str]) -> SelectionMapping:
        return self.selection(backbone, len(classes), refit="once")
