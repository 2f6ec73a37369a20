"""A prompt that a small network draws of each sample's features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.coordinator.transform import CoordinatorTransform


class CoordinatorSpec(InputTransformSpec):
    """A prompt for each sample, over the whole canvas, which a decoder draws of a frozen encoder's features.

    Oh et al., BlackVIP: Black-Box Visual Prompting for Robust Transfer Learning, 2023, arXiv:2303.14773, where it is
    trained by `spsa`. The paper's encoder is a masked autoencoder of 86 M parameters; here it is builtin/mini-clip,
    which is at hand wherever an adapter is loaded, and reads the image beside the backbone.
    """

    kind: Literal["coordinator"] = "coordinator"
    strength: float = Field(
        0.5, gt=0, le=10, description="Epsilon of the paper, 0.2 to 1 by dataset: what the decoder's output is times."
    )

    def build(self, canvas: Preprocessing) -> CoordinatorTransform:
        from mr_core.input_transforms.coordinator.transform import CoordinatorTransform

        return CoordinatorTransform(canvas, strength=self.strength)
