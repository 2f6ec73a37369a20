"""A frame prompt for each group of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.input_transforms.base import InputTransformSpec
from mr_core.input_transforms.padding.spec import PaddingSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.decoupled.transform import DecoupledTransform


class DecoupledSpec(InputTransformSpec):
    """Several frames, so several views of an image, each scored against a group of texts of its own.

    Cai et al., Understanding Model Reprogramming for CLIP via Decoupling Visual Prompts (DVP), 2025, arXiv:2506.01000.
    It goes with the mapping `probabilistic_reweighting` of as many clusters or causes. All views of a batch are one
    pass; a step takes as many passes as there are prompts. The paper's 3 prompts frame 192 of 224 pixels.
    """

    is_composite: ClassVar[bool] = True

    kind: Literal["decoupled"] = "decoupled"
    prompts: int = Field(3, ge=1, le=20, description="Frames (v of the paper).")
    image_size: int | None = Field(
        None, ge=1, description="Side of the image inside the canvas, in pixels; 6/7 of it if unset (192 of 224)."
    )

    @property
    def views(self) -> int:
        return self.prompts

    def size_on(self, canvas_size: int) -> int:
        return self.image_size or max(1, canvas_size * 6 // 7)

    def check(self, canvas_size: int) -> None:
        PaddingSpec(image_size=self.size_on(canvas_size)).check(canvas_size)

    def build(self, canvas: Preprocessing) -> DecoupledTransform:
        from mr_core.input_transforms.decoupled.transform import DecoupledTransform

        self.check(canvas.size)
        return DecoupledTransform(image_size=self.size_on(canvas.size), canvas_size=canvas.size, n_prompts=self.prompts)
