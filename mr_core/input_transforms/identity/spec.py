"""No prompt: the backbone's own preprocessing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mr_core.backbones.description import Preprocessing
from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.identity.transform import IdentityTransform


class IdentitySpec(InputTransformSpec):
    """The image alone at the size of the canvas, with nothing to train: short side resized, centre cropped."""

    kind: Literal["identity"] = "identity"

    def build(self, canvas: Preprocessing) -> IdentityTransform:
        from mr_core.input_transforms.identity.transform import IdentityTransform

        return IdentityTransform(image_size=canvas.size, canvas_size=canvas.size)
