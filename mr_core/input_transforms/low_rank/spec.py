"""The additive prompt of low rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.additive_spec import Additive
from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.low_rank.transform import LowRankTransform


class LowRankSpec(Additive, InputTransformSpec):
    """A pattern over the whole canvas that is a product of thin factors in each colour: few parameters, any place.

    The factors start as those of Hu et al., LoRA, 2021, arXiv:2106.09685: one drawn, one 0. Fewer dimensions are what
    training without gradients asks for.
    """

    kind: Literal["low_rank"] = "low_rank"
    rank: int = Field(
        4, ge=1, description="Columns of each factor; 6 S rank parameters on a canvas of S pixels a side."
    )

    def check(self, canvas_size: int) -> None:
        if self.rank > canvas_size:
            raise SpecError(
                f"rank {self.rank} is above the canvas' side of {canvas_size} pixels, which no pattern needs: at most "
                f"{canvas_size}, or the watermark",
                param="input_transform.rank",
            )

    def build(self, canvas: Preprocessing) -> LowRankTransform:
        from mr_core.input_transforms.low_rank.transform import LowRankTransform

        self.check(canvas.size)
        return LowRankTransform(canvas_size=canvas.size, rank=self.rank, scale=self.scale(canvas))
