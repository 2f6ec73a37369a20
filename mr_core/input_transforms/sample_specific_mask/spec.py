"""The additive prompt behind a mask of each sample's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.backbones.description import Preprocessing
from mr_core.errors import SpecError
from mr_core.input_transforms.base import InputTransformSpec

if TYPE_CHECKING:
    from mr_core.input_transforms.sample_specific_mask.transform import SampleSpecificMaskTransform


class SampleSpecificMaskSpec(InputTransformSpec):
    """A pattern over the whole canvas, shared by all samples, times a mask that a small network draws of each sample.

    Cai et al., Sample-specific Masks for Visual Reprogramming-based Prompting (SMM), 2024, arXiv:2406.03150. The
    paper's 5 layers are for residual networks, 6 for vision transformers. Pattern and network take one learning rate,
    as the paper has it for residual networks; for vision transformers it has the network's at 0.001, kept there to the
    end, which `rates` of the trainer gives but for the schedule. On a side that 2^pools does not divide, the mask is
    enlarged to the canvas by nearest neighbours; the published code refuses such sides.
    """

    kind: Literal["sample_specific_mask"] = "sample_specific_mask"
    layers: Literal[5, 6] = Field(5, description="Convolutions of the mask network: 26,499 or 102,339 parameters.")
    pools: int = Field(
        3, ge=0, le=4, description="Layers with max-pooling: the mask is constant on squares of 2^pools pixels."
    )

    def check(self, canvas_size: int) -> None:
        if canvas_size < 2**self.pools:
            raise SpecError(
                f"{self.pools} poolings leave nothing of a canvas of {canvas_size} pixels: it takes {2**self.pools}",
                param="input_transform.pools",
            )

    def build(self, canvas: Preprocessing) -> SampleSpecificMaskTransform:
        from mr_core.input_transforms.sample_specific_mask.transform import SampleSpecificMaskTransform

        self.check(canvas.size)
        return SampleSpecificMaskTransform(canvas, n_layers=self.layers, n_pools=self.pools)
