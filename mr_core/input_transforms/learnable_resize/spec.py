"""The frame prompt around an image whose size is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.learnable_resize.transform import LearnableResizeTransform


class LearnableResizeSpec(InputTransformSpec):
    """A learnable frame around an image whose scale is learned with it, shared by all samples.

    Tsao et al., AutoVP: An Automated Visual Prompting Framework and Benchmark, 2023, arXiv:2310.08381. As there the
    scale learns through the resampled image only: where the frame ends is the scale rounded to whole pixels, which has
    no gradient. Resampling is bilinear.
    """

    kind: Literal["learnable_resize"] = "learnable_resize"
    image_size: int | None = Field(
        None, ge=1, description="Side of the image at scale 1, in pixels; 4/7 of the canvas if unset (128 of 224)."
    )
    scale: float = Field(1.0, ge=0.1, le=5, description="Where the scale starts; it stays within 0.1 and 5.")

    def size_on(self, canvas_size: int) -> int:
        return self.image_size or max(1, canvas_size * 4 // 7)

    def check(self, canvas_size: int) -> None:
        if self.size_on(canvas_size) > canvas_size:
            raise SpecError(
                f"image_size {self.image_size} is more than the canvas of this backbone has: at most {canvas_size}",
                param="input_transform.image_size",
            )

    def build(self, canvas: Preprocessing) -> LearnableResizeTransform:
        from mr_core.input_transforms.learnable_resize.transform import LearnableResizeTransform

        self.check(canvas.size)
        return LearnableResizeTransform(
            image_size=self.size_on(canvas.size), canvas_size=canvas.size, initial_scale=self.scale
        )
