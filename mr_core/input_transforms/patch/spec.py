"""The patch prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.additive_spec import Additive
from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.patch.transform import PatchTransform


class PatchSpec(Additive, InputTransformSpec):
    """A learnable square added to the image, in its upper left corner or at a place that changes from image to image.

    Bahng et al., Exploring Visual Prompts for Adapting Large-Scale Models, 2022, arXiv:2203.17274. Zero at first, not
    drawn. Their random patch moves at every call, at evaluation too, so its accuracy depends on the draw; here the
    place is drawn from the image's own pixels, so an image has one place always and a prediction can be repeated.
    """

    kind: Literal["patch"] = "patch"
    size: int | None = Field(
        None, ge=1, description="Side of the square in pixels (30 of 224 in the paper); 15/112 of the canvas if unset."
    )
    place: Literal["corner", "random"] = Field("corner", description="Where it lies.")

    def check(self, canvas_size: int) -> None:
        if self.size is not None and self.size > canvas_size:
            raise SpecError(
                f"a patch of {self.size} pixels does not fit the canvas of {canvas_size}",
                param="input_transform.size",
            )

    def build(self, canvas: Preprocessing) -> PatchTransform:
        from mr_core.input_transforms.patch.transform import PatchTransform

        self.check(canvas.size)
        return PatchTransform(
            canvas_size=canvas.size,
            size=self.size or max(1, round(canvas.size * 15 / 112)),
            is_moving=self.place == "random",
            scale=self.scale(canvas),
        )
