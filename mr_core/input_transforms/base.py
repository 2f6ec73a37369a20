"""The family's contract: a spec that builds a module from target images to canvases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from mr_core.backbones.description import Preprocessing
from mr_core.registry import MethodSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.module import InputTransform


class InputTransformSpec(MethodSpec, ABC):
    """Hyper-parameters of an input transform."""

    is_composite: ClassVar[bool] = False  # made of other input transforms

    kind: str

    @property
    def views(self) -> int:
        """Canvases of an image."""
        return 1

    def size_on(self, canvas_size: int) -> int:
        """Side of the image that the transform takes on a canvas of that side, in pixels; the whole by default."""
        return canvas_size

    def check(self, canvas_size: int) -> None:
        """SpecError where the transform does not fit a canvas of that side; what can be told without building it."""

    def choices(self, canvas_size: int) -> tuple[InputTransformSpec, ...]:
        """The transforms among which validation images choose; itself alone where the spec leaves nothing open."""
        return (self,)

    @abstractmethod
    def build(self, canvas: Preprocessing) -> InputTransform:
        """The transform onto the canvas of a backbone; SpecError where it does not fit."""


Fit = Literal["stretch", "crop"]
