"""The additive prompt of low frequencies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.additive_spec import Additive
from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.frequency.transform import FrequencyTransform


class FrequencySpec(Additive, InputTransformSpec):
    """A smooth pattern over the whole canvas, given by the lowest frequencies of its cosine transform.

    The search space of Guo et al., Low Frequency Adversarial Perturbation, 2018, arXiv:1809.08758, where far fewer
    queries find a change that a classifier sees; here the pattern is shared by all samples.
    """

    kind: Literal["frequency"] = "frequency"
    frequencies: int | None = Field(
        None, ge=1, description="Lowest frequencies along each axis; an eighth of the canvas' side if unset."
    )

    def check(self, canvas_size: int) -> None:
        if self.frequencies is not None and self.frequencies > canvas_size:
            raise SpecError(
                f"{self.frequencies} frequencies along an axis, but the canvas of {canvas_size} pixels has "
                f"{canvas_size} in all",
                param="input_transform.frequencies",
            )

    def build(self, canvas: Preprocessing) -> FrequencyTransform:
        from mr_core.input_transforms.frequency.transform import FrequencyTransform

        self.check(canvas.size)
        return FrequencyTransform(
            canvas_size=canvas.size,
            n_frequencies=self.frequencies or max(1, canvas.size // 8),
            scale=self.scale(canvas),
        )
