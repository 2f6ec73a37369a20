"""The frame prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.padding.transform import PaddingTransform


class PaddingSpec(InputTransformSpec):
    """A learnable frame around the shrunken image, shared by all samples.

    Chen et al., Understanding and Improving Visual Prompting, 2023. arXiv:2211.11635
    """

    kind: Literal["padding"] = "padding"
    image_size: int | None = Field(
        None, ge=1, description="Side of the image inside the canvas, in pixels; 4/7 of it if unset (128 of 224)."
    )

    def build(self, canvas_size: int) -> PaddingTransform:
        from mr_core.input_transforms.padding.transform import PaddingTransform

        return PaddingTransform(self, canvas_size)
