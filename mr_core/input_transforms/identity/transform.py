"""No prompt: the canvas is the image."""

from jaxtyping import Float
from torch import Tensor

from mr_core.input_transforms.module import InputTransform, JacobianFactor


class IdentityTransform(InputTransform):
    """The image itself; no parameters."""

    fit = "crop"

    def forward(self, images: Float[Tensor, "n 3 k k"]) -> Float[Tensor, "n 3 k k"]:
        return images

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 k k"], gradients: Float[Tensor, "n 3 k k"]
    ) -> tuple[JacobianFactor, ...]:
        return ()
