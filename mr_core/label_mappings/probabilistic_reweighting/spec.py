"""Texts weighted by how often they are near."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from mr_core.errors import SpecError
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.descriptions import (
    ClassTexts,
    Described,
    Templates,
    n_templates,
    require_few_texts,
    require_texts_of,
    texts_of,
)

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.probabilistic_reweighting.mapping import ProbabilisticReweightingMapping


class ProbabilisticReweightingSpec(Described, LabelMappingSpec):
    """Texts of a class weighted by how often they are among the k nearest of its training images; counted each epoch.

    The probabilistic reweighting matrix of Cai et al., Understanding Model Reprogramming for CLIP via Decoupling Visual
    Prompts (DVP), 2025, arXiv:2506.01000. Under the input transform `decoupled` the texts fall into as many groups as
    it has prompts, `clusters` found by k-means on their embeddings or `causes` that are given, each scored by the view
    of its group. The paper spends its first epoch on the first count; here it is taken before the first epoch,
    with the untrained prompt. A class without images weighs its texts alike.
    """

    kind: Literal["probabilistic_reweighting"] = "probabilistic_reweighting"
    top_k: int = Field(3, ge=1, le=1000, description="Nearest texts of its class that a training image counts for.")
    clusters: int = Field(1, ge=1, le=20, description="Groups of texts, by k-means; 1 where there is one prompt.")
    causes: Annotated[tuple[ClassTexts | Templates, ...], Field(min_length=1, max_length=20)] | None = Field(
        None,
        description="Instead of templates and clusters: the texts of each group, such as of shape, colour, texture, by "
        "class name. Of classes with more texts in a group than another, the first ones count.",
    )

    @model_validator(mode="after")
    def _groups_are_given_or_found(self) -> ProbabilisticReweightingSpec:
        if self.causes is not None and (self.clusters > 1 or self.templates != "clip"):
            raise ValueError("causes are the texts and their groups: leave templates and clusters out")
        return self

    @property
    def views(self) -> int:
        return self.clusters if self.causes is None else len(self.causes)

    def check(self, classes: Sequence[str]) -> None:
        if self.causes is None:
            n = self.n_templates(len(classes))
            if n * len(classes) < self.clusters:
                raise SpecError(
                    f"{self.clusters} clusters of {n * len(classes)} texts, expected no more than there are texts",
                    param="label_mapping.clusters",
                )
            return
        n = 0
        for index, cause in enumerate(self.causes):
            if isinstance(cause, dict):
                require_texts_of(cause, classes, at_least=1, param=f"label_mapping.causes.{index}")
                n += min(len(cause[name]) for name in classes)
            else:
                n += n_templates(cause)
        require_few_texts(n, len(classes), param="label_mapping.causes")

    def sentences(self, classes: Sequence[str]) -> tuple[list[list[str]], list[int]]:
        """The texts of each class, equally many, and the cause of each; of templates they are all 0."""
        if self.causes is None:
            return texts_of(self.templates, classes), [0] * n_templates(self.templates)
        texts: list[list[str]] = [[] for _ in classes]
        groups: list[int] = []
        for index, cause in enumerate(self.causes):
            of = [list(cause[name]) for name in classes] if isinstance(cause, dict) else texts_of(cause, classes)
            n = min(map(len, of))
            groups += [index] * n
            for own, more in zip(texts, of, strict=True):
                own += more[:n]
        return texts, groups

    def build(self, backbone: Backbone, classes: Sequence[str]) -> ProbabilisticReweightingMapping:
        from mr_core.label_mappings.described import embedding
        from mr_core.label_mappings.probabilistic_reweighting.mapping import ProbabilisticReweightingMapping

        self.check(classes)
        texts, groups = self.sentences(classes)
        return ProbabilisticReweightingMapping(
            top_k=self.top_k,
            n_targets=len(classes),
            n_texts=len(groups),
            width=backbone.width("image_text"),
            embed=embedding(backbone, lambda: texts),
            views=self.views,
            groups=None if self.causes is None else groups,
        )
