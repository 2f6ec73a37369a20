"""The nearest attributes of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Output
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.label_mappings.descriptions import (
    ClassTexts,
    Templates,
    n_templates,
    require_few_texts,
    require_texts_of,
    texts_of,
)

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.attribute.mapping import AttributeMapping


class AttributeSpec(LabelMappingSpec):
    """A class scores by those of its texts that are nearest to the image, sample by sample; nothing is trained.

    Cai et al., Attribute-based Visual Reprogramming for Vision-Language Models (AttrVR), 2025, arXiv:2501.13982: a
    descriptive and a distinctive set of 20 sentences a class, written by a language model, which is not part of this
    service: give the sentences. Without them the templates of CLIP stand in, and there is one set.
    """

    kind: Literal["attribute"] = "attribute"
    descriptive: ClassTexts | Templates = Field(
        "clip",
        description="Sentences that describe each class, by class name; or templates in which `{}` stands for it, "
        "`clip` the 81 of the mapping `template`.",
    )
    distinctive: ClassTexts | Templates | None = Field(
        None, description="Sentences that tell each class from the others; null: the descriptive ones alone."
    )
    texts_per_class: int = Field(
        20, ge=1, le=1000, description="Sentences of a class, drawn from those given (m of the paper); all if fewer."
    )
    top_k: int = Field(3, ge=1, le=1000, description="Nearest sentences whose scores are averaged (k of the paper).")
    descriptive_weight: float = Field(0.5, ge=0, le=1, description="Of the descriptive scores (lambda of the paper).")
    seed: int = Field(0, ge=0, lt=2**31, description="Of the draw of sentences, apart from the job's seed.")

    @property
    def reads(self) -> Output:
        return "image_text"

    def check(self, classes: Sequence[str]) -> None:
        for name in ("descriptive", "distinctive"):
            given, param = getattr(self, name), f"label_mapping.{name}"
            if isinstance(given, dict):
                require_texts_of(given, classes, at_least=self.top_k, param=param)
            elif given is not None:
                require_few_texts(min(n_templates(given), self.texts_per_class), len(classes), param=param)

    def sentences(self, classes: Sequence[str]) -> list[list[list[str]]]:
        """The sentences in use: of each set, of each class; equally many for the classes of a set.

        Of templates every class gets the same, of its own sentences each class has its own draw.
        """
        import numpy as np

        self.check(classes)
        sets = []
        for given in (self.descriptive, self.distinctive):
            if given is None:
                continue
            own = isinstance(given, dict)
            texts = [list(given[name]) for name in classes] if isinstance(given, dict) else texts_of(given, classes)
            n = min(self.texts_per_class, *map(len, texts))
            draws = (
                np.random.default_rng([self.seed, i if own else 0]).permutation(len(of)) for i, of in enumerate(texts)
            )
            sets.append([[of[i] for i in sorted(draw[:n])] for of, draw in zip(texts, draws, strict=True)])
        return sets

    def build(self, backbone: Backbone, classes: Sequence[str]) -> AttributeMapping:
        from mr_core.label_mappings.attribute.mapping import AttributeMapping
        from mr_core.label_mappings.described import embedding

        sentences = self.sentences(classes)
        weights = (1.0,) if len(sentences) == 1 else (self.descriptive_weight, 1 - self.descriptive_weight)
        return AttributeMapping(
            top_k=self.top_k,
            weights=weights,
            n_targets=len(classes),
            n_texts=[len(of_set[0]) for of_set in sentences],
            width=backbone.width("image_text"),
            embed=[embedding(backbone, lambda of_set=of_set: of_set) for of_set in sentences],  # type: ignore[misc]
        )
