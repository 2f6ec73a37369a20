"""The module every input transform is: images in, canvases out, both in pixel space."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from mr_core.input_transforms.base import Fit


class InputTransform(nn.Module, ABC):
    """Maps images `(n, 3, image_size, image_size)` in [0, 1] to canvases `(n, 3, canvas_size, canvas_size)`.

    Pixel space means values before the backbone's mean and standard deviation are applied. Every
    parameter trains; what is fixed is a buffer. A new tensor is returned, the input is never written.
    """

    fit: Fit = "stretch"  # how a rectangular image becomes square: stretched, or short side then centre crop

    def __init__(self, *, image_size: int, canvas_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.canvas_size = canvas_size

    @abstractmethod
    def forward(self, images: Float[Tensor, "n 3 k k"]) -> Float[Tensor, "n 3 s s"]:
        """The canvases."""

    def picture(self) -> Float[Tensor, "3 s s"] | None:
        """The learned prompt as an image in [0, 1], or None where there is nothing to see."""
        return None

    def canvas_gradient_to_parameters(self, gradients: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n p"] | None:
        """Rows of the parameter Jacobian from rows of the canvas Jacobian, or None where no shortcut exists.

        For a prompt shared by all samples, `d f / d theta` per sample is the gradient at the canvas times a
        diagonal: one backward pass per output then serves a whole batch (the structured path of the kernel).
        Columns follow `self.parameters()` in order, each flattened.
        """
        return None
