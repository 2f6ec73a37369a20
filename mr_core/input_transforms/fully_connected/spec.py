"""The fully connected input transform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.fully_connected.transform import FullyConnectedTransform

MAX_PARAMETERS = 40_000_000  # 160 MB in float32, and twice that again for Adam


class FullyConnectedSpec(InputTransformSpec):
    """A trained affine map of all pixels to all pixels of a small image, which is then resized to the canvas.

    The FC transformation of the tangent-kernel theory of reprogramming (arXiv:2506.00620). Full, it has
    9,440,256 parameters at 32 pixels and is out of reach at 224 (2.3e10): hence the small image, and a low rank.
    """

    kind: Literal["fully_connected"] = "fully_connected"
    image_size: int | None = Field(
        None, ge=1, le=256, description="Side of the image it maps, in pixels; 32, or the canvas where that is smaller."
    )
    rank: int | None = Field(
        None, ge=1, description="The map is the identity plus a product of rank r, 2 r (3 s^2) weights; full if unset."
    )

    def size_on(self, canvas_size: int) -> int:
        return self.image_size if self.image_size is not None else min(32, canvas_size)

    def check(self, canvas_size: int) -> None:
        size = self.size_on(canvas_size)
        if size > canvas_size:
            raise SpecError(
                f"image_size {size} is more than the canvas of {canvas_size} pixels", param="input_transform.image_size"
            )
        width = 3 * size**2
        n_parameters = width + width * (width if self.rank is None else 2 * self.rank)
        if n_parameters > MAX_PARAMETERS:
            raise SpecError(
                f"a fully connected map at {size} pixels has {n_parameters:,} parameters, at most {MAX_PARAMETERS:,} "
                "are taken: use a smaller image_size or a rank",
                param="input_transform.image_size",
            )

    def build(self, canvas: Preprocessing) -> FullyConnectedTransform:
        from mr_core.input_transforms.fully_connected.transform import FullyConnectedTransform

        self.check(canvas.size)
        return FullyConnectedTransform(image_size=self.size_on(canvas.size), canvas_size=canvas.size, rank=self.rank)
