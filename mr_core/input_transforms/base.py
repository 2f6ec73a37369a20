"""The family's contract: a spec that builds a module from target images to canvases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

from mr_core.registry import MethodSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.module import InputTransform


class InputTransformSpec(MethodSpec, ABC):
    """Hyper-parameters of an input transform."""

    kind: str

    @abstractmethod
    def build(self, canvas_size: int) -> InputTransform:
        """The transform onto a canvas of `canvas_size` pixels a side; SpecError where it does not fit."""


Fit = Literal["stretch", "crop"]
