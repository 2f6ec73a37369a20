"""What prompts that are added to the image share."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.input_transforms.module import InputTransform


class AdditiveTransform(InputTransform):
    """`x + pattern`, the same for all samples, on the whole canvas.

    Adding delta after normalisation is adding `std * delta` before it, so canvases stay in pixel space; like the
    published code this does not clip them to [0, 1].
    """

    scale: Float[Tensor, "3 1 1"]

    def __init__(self, *, canvas_size: int, scale: Sequence[float]) -> None:
        super().__init__(image_size=canvas_size, canvas_size=canvas_size)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(3, 1, 1), persistent=False)

    @abstractmethod
    def pattern(self) -> Float[Tensor, "3 s s"]:
        """What is added, in pixel space; 0 where nothing is."""

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
        return images + self.pattern()

    def picture(self) -> Float[Tensor, "3 s s"]:
        """The pattern around middle grey, clipped to what can be shown."""
        return (0.5 + self.pattern()).clamp(0, 1).detach()
