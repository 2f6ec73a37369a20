"""The family's contract: a spec that builds a module from backbone outputs to target logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mr_core.backbones.description import Output
from mr_core.registry import MethodSpec

if TYPE_CHECKING:
    from mr_core.backbones.backbone import Backbone
    from mr_core.label_mappings.module import LabelMapping


class LabelMappingSpec(MethodSpec, ABC):
    """Hyper-parameters of a label mapping."""

    kind: str

    @property
    @abstractmethod
    def reads(self) -> Output:
        """The backbone output that it maps."""

    @property
    def views(self) -> int:
        """Views of an image that it reads."""
        return 1

    def sources_needed(self, n_targets: int) -> int:
        """Source classes that the backbone must have at least for so many target classes."""
        return 0

    def check(self, classes: Sequence[str]) -> None:
        """SpecError where the mapping cannot be onto these classes; what can be told without a backbone."""

    @abstractmethod
    def build(self, backbone: Backbone, classes: Sequence[str]) -> LabelMapping:
        """The mapping onto `classes`; SpecError where the backbone lacks the output it reads."""
