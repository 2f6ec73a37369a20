"""The frame prompt."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.padding.transform import PaddingTransform

_AUTO = ("1/4", "3/8", "1/2", "5/8", "3/4", "7/8")


class PaddingSpec(InputTransformSpec):
    """A learnable frame around the shrunken image, shared by all samples.

    Chen et al., Understanding and Improving Visual Prompting, 2023. arXiv:2211.11635
    """

    kind: Literal["padding"] = "padding"
    image_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None,
        description="Side of the image inside the canvas, in pixels; 4/7 of it if unset (128 of 224). `auto`: the one "
        f"of {', '.join(_AUTO)} of the canvas that serves validation images best before training.",
    )

    def size_on(self, canvas_size: int) -> int:
        return self.image_size if isinstance(self.image_size, int) else max(1, canvas_size * 4 // 7)

    def check(self, canvas_size: int) -> None:
        image_size = self.size_on(canvas_size)
        if image_size >= canvas_size:
            raise SpecError(
                f"image_size {image_size} leaves no frame: the canvas of this backbone is {canvas_size} pixels a side, "
                f"so image_size must be at most {canvas_size - 1} (or use the identity transform)",
                param="input_transform.image_size",
            )

    def choices(self, canvas_size: int) -> tuple[PaddingSpec, ...]:
        if self.image_size != "auto":
            return (self,)
        sizes = sorted({max(1, int(canvas_size * Fraction(share))) for share in _AUTO})
        return tuple(self.model_copy(update={"image_size": size}) for size in sizes)

    def build(self, canvas: Preprocessing) -> PaddingTransform:
        from mr_core.input_transforms.padding.transform import PaddingTransform

        self.check(canvas.size)
        return PaddingTransform(image_size=self.size_on(canvas.size), canvas_size=canvas.size)
