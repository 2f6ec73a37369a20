"""Bayesian-guided label mapping with soft counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from mr_core.backbones.description import Output
from mr_core.label_mappings.base import LabelMappingSpec

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.bayesian.mapping import BayesianMapping

CANDIDATES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)


class BayesianPlusSpec(LabelMappingSpec):
    """The Bayesian mapping, counted by the probabilities of each sample's top k source classes (BLM+).

    Cai et al., Bayesian-guided Label Mapping for Visual Reprogramming, 2024. arXiv:2410.24018. The published
    k = int(0.15 n_targets) is 0 up to six classes, which leaves nothing to count: at least 1 here.
    """

    kind: Literal["bayesian_plus"] = "bayesian_plus"
    top_k: Annotated[int, Field(ge=1, le=100_000)] | Literal["published", "validation"] = Field(
        "published",
        description="Source classes that a sample counts for. `published`: 15 % of the number of target classes, at "
        f"least 1. `validation`: the one of {', '.join(map(str, CANDIDATES))} that is best on validation images; "
        "`published` where there are none.",
    )
    smoothing: float = Field(1.0, gt=0, le=1e6, description="Lambda: added to the count of each source class.")
    refit: Literal["once", "each_epoch", "from_training"] = Field(
        "each_epoch",
        description="Before the first epoch alone; by a pass before every epoch, with the current prompt; or after "
        "every epoch from the outputs that it saw (the published fast edition), which saves the pass.",
    )

    @model_validator(mode="after")
    def _choose_in_a_pass(self) -> BayesianPlusSpec:
        if self.top_k == "validation" and self.refit == "from_training":
            raise ValueError('refit: "from_training" has no pass over validation images; give top_k a number')
        return self

    @property
    def reads(self) -> Output:
        return "source_logits"

    def build(self, backbone: Backbone, classes: Sequence[str]) -> BayesianMapping:
        from mr_core.label_mappings.bayesian.mapping import BayesianMapping, counting_top

        n_sources = backbone.width("source_logits")
        chosen = [counting_top(k) for k in CANDIDATES if k <= n_sources] if self.top_k == "validation" else []
        published = max(1, int(0.15 * len(classes)))
        return BayesianMapping(
            n_sources=n_sources,
            n_targets=len(classes),
            smoothing=self.smoothing,
            count=counting_top(self.top_k if isinstance(self.top_k, int) else published),
            refit=self.refit,
            candidates=chosen,
        )
