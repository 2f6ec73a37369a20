"""The module every input transform is: images in, canvases out, both in pixel space."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from mr_core.input_transforms.base import Fit


class JacobianFactor(NamedTuple):
    """The gradient of some parameters as a Kronecker product, sample by sample: `samples[i] (x) rows[i]`.

    Two samples have the inner product `(samples . samples') (rows . rows')`, so p q parameters take p + q numbers a
    sample. `samples` is None where it would be 1, as for a prompt that all samples share.
    """

    parameters: tuple[str, ...]
    rows: Float[Tensor, "n p"]
    samples: Float[Tensor, "n q"] | None = None


class InputTransform(nn.Module, ABC):
    """Maps images `(n, 3, image_size, image_size)` in [0, 1] to canvases `(n, 3, canvas_size, canvas_size)`.

    One of several `views` gives that many canvases an image, those of an image after one another: `(n views, 3, ...)`.
    Pixel space means values before the backbone's mean and standard deviation are applied. Every
    parameter trains; what is fixed is a buffer. A new tensor is returned, the input is never written.
    """

    views: int = 1  # canvases of an image
    fit: Fit = "stretch"  # how a rectangular image becomes square: stretched, or short side then centre crop

    def __init__(self, *, image_size: int, canvas_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.canvas_size = canvas_size

    @abstractmethod
    def forward(self, images: Float[Tensor, "n 3 k k"]) -> Float[Tensor, "n 3 s s"]:
        """The canvases."""

    def side_by_side(self, outputs: Float[Tensor, "m d"]) -> Float[Tensor, "n _"]:
        """What a backbone gives for the canvases, those of an image in one row: `(n, views d)`."""
        return outputs if self.views == 1 else outputs.reshape(-1, self.views * outputs.shape[1])

    def picture(self) -> Float[Tensor, "3 s w"] | None:
        """The learned prompt as an image in [0, 1], or None where there is nothing to see."""
        return None

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 k k"], gradients: Float[Tensor, "n 3 s s"]
    ) -> Sequence[JacobianFactor] | None:
        """Each sample's parameter gradient from its gradient at the canvas, factored; None where no form is known.

        One backward pass per output then serves a whole batch (the structured path of the kernel), and nothing of
        the size of the parameters is formed. The factors cover every parameter once; `rows` are linear in
        `gradients`, `samples` do not depend on them. No graph is kept.
        """
        return None
