"""The additive prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.additive_spec import Additive
from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.watermark.transform import WatermarkTransform


class WatermarkSpec(Additive, InputTransformSpec):
    """A learnable pattern added to the image, over the whole canvas or along its edge, shared by all samples.

    Bahng et al., Exploring Visual Prompts for Adapting Large-Scale Models, 2022, arXiv:2203.17274 (along the edge, 30
    of 224 pixels wide, drawn from a normal distribution at first); the full watermark of Cai et al., 2024,
    arXiv:2406.03150. Zero at first here, as in the later code: training begins at the image alone.
    """

    kind: Literal["watermark"] = "watermark"
    width: int | None = Field(
        None,
        ge=1,
        description="Pixels from each edge that carry the pattern (30 of 224 in the paper); all if unset.",
    )

    def check(self, canvas_size: int) -> None:
        if self.width is not None and 2 * self.width > canvas_size:
            raise SpecError(
                f"a width of {self.width} from each edge is more than the canvas of {canvas_size} pixels has; "
                f"at most {canvas_size // 2}, or leave it unset for the whole canvas",
                param="input_transform.width",
            )

    def build(self, canvas: Preprocessing) -> WatermarkTransform:
        from mr_core.input_transforms.watermark.transform import WatermarkTransform

        self.check(canvas.size)
        return WatermarkTransform(
            canvas_size=canvas.size,
            width=self.width,
            scale=self.scale(canvas),
        )
