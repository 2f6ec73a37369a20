"""What the specs of prompts that are added to the image share. Torch-free."""

from typing import Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.registry import MethodSpec


class Additive(MethodSpec):
    """A pattern added to the image at the size of the canvas."""

    space: Literal["normalised", "pixel"] = Field(
        "normalised",
        description="Where the pattern is added: after the backbone's mean and standard deviation were applied, as in "
        "the published code, or to pixels in [0, 1]. The same patterns are reachable; the steps differ in size.",
    )

    def scale(self, canvas: Preprocessing) -> tuple[float, float, float]:
        """What a unit of the pattern is in pixel space, for each colour."""
        return canvas.std if self.space == "normalised" else (1.0, 1.0, 1.0)
