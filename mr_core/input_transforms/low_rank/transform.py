"""The additive prompt of low rank: a product of two thin factors a colour."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.input_transforms.additive import AdditiveTransform
from mr_core.input_transforms.module import JacobianFactor


class LowRankTransform(AdditiveTransform):
    """`x + scale * left right^T` in each of three colours, 6 S r parameters.

    `left` is drawn from a normal distribution of deviation 1 / sqrt(r), the same each time; `right` starts at 0, so
    training begins at the image alone.
    """

    def __init__(self, *, canvas_size: int, rank: int, scale: Sequence[float]) -> None:
        super().__init__(canvas_size=canvas_size, scale=scale)
        drawn = torch.randn(3, canvas_size, rank, generator=torch.Generator().manual_seed(0))
        self.left = nn.Parameter(drawn / rank**0.5)
        self.right = nn.Parameter(torch.zeros(3, canvas_size, rank))

    def pattern(self) -> Float[Tensor, "3 s s"]:
        return self.left @ self.right.mT * self.scale

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 s s"], gradients: Float[Tensor, "n 3 s s"]
    ) -> tuple[JacobianFactor, JacobianFactor]:
        scaled = gradients * self.scale
        left, right = self.left.detach(), self.right.detach()
        return (
            JacobianFactor(("left",), (scaled @ right).flatten(1)),
            JacobianFactor(("right",), (scaled.mT @ left).flatten(1)),
        )
