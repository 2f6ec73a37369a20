"""Bayesian-guided label mapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Output
from mr_core.label_mappings.base import LabelMappingSpec

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.bayesian.mapping import BayesianMapping


class BayesianSpec(LabelMappingSpec):
    """Every source class speaks for every target class, by the probability of the target given the source (BLM).

    Cai et al., Bayesian-guided Label Mapping for Visual Reprogramming, 2024. arXiv:2410.24018
    """

    kind: Literal["bayesian"] = "bayesian"
    smoothing: float = Field(1.0, gt=0, le=1e6, description="Lambda: added to the count of each source class.")
    refit: Literal["once", "each_epoch", "from_training"] = Field(
        "each_epoch",
        description="Before the first epoch alone; by a pass before every epoch, with the current prompt; or after "
        "every epoch from the outputs that it saw (the published fast edition), which saves the pass.",
    )

    @property
    def reads(self) -> Output:
        return "source_logits"

    def build(self, backbone: Backbone, classes: Sequence[str]) -> BayesianMapping:
        from mr_core.label_mappings.bayesian.mapping import BayesianMapping, predicted_classes

        return BayesianMapping(
            n_sources=backbone.width("source_logits"),
            n_targets=len(classes),
            smoothing=self.smoothing,
            count=predicted_classes,
            refit=self.refit,
        )
