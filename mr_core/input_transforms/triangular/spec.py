"""The prompt in the redundant half of a symmetric matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.padding.transform import PaddingTransform


class TriangularSpec(InputTransformSpec):
    """A learnable frame that also covers the image below its diagonal, for correlation matrices drawn as images.

    What lies below the diagonal of a symmetric matrix repeats what lies above it. The published experiments on brain
    connectivity reprogram such matrices (Tsai et al., BAR, 2020, arXiv:2007.08714). AutoVP's code has such a triangle
    too (Tsao et al., 2023, arXiv:2310.08381); there it takes the diagonal, and is added to the image. The image has
    to be square, with its diagonal from the upper left.
    """

    kind: Literal["triangular"] = "triangular"
    image_size: int | None = Field(
        None, ge=2, description="Side of the image inside the canvas, in pixels; 4/7 of it if unset (128 of 224)."
    )

    def size_on(self, canvas_size: int) -> int:
        return self.image_size or max(2, canvas_size * 4 // 7)

    def check(self, canvas_size: int) -> None:
        if self.size_on(canvas_size) > canvas_size:
            raise SpecError(
                f"image_size {self.image_size} is more than the canvas of this backbone has: at most {canvas_size}",
                param="input_transform.image_size",
            )

    def build(self, canvas: Preprocessing) -> PaddingTransform:
        import torch

        from mr_core.input_transforms.padding.transform import PaddingTransform

        self.check(canvas.size)
        size = self.size_on(canvas.size)
        below = torch.ones(size, size, dtype=torch.bool).tril(-1)
        return PaddingTransform(image_size=size, canvas_size=canvas.size, covered=below)
