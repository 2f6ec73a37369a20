"""The fully connected input transform: an affine map of pixels, resized to the canvas."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mr_core.input_transforms.module import InputTransform, JacobianFactor

_INITIAL_SCALE = 1e-2


class FullyConnectedTransform(InputTransform):
    """`resize(A vec(x) + c)`, or with a rank r `resize(vec(x) + U V vec(x) + c)`, values unbounded (arXiv:2506.00620).

    Starts at the image itself: A is the identity, c and U are zero, V is drawn once with a fixed seed. The paper
    draws A at random, from where a short training has first to find the image again. Bilinear resizing, as a
    resize of the canvas must have a gradient; none where the image has the size of the canvas.
    """

    def __init__(self, *, image_size: int, canvas_size: int, rank: int | None) -> None:
        super().__init__(image_size=image_size, canvas_size=canvas_size)
        width = 3 * image_size**2
        if rank is None:
            self.weight = nn.Parameter(torch.eye(width))
        else:
            generator = torch.Generator().manual_seed(0)
            self.up = nn.Parameter(torch.zeros(width, rank))
            self.down = nn.Parameter(torch.randn(rank, width, generator=generator) * _INITIAL_SCALE)
        self.bias = nn.Parameter(torch.zeros(width))
        self._is_full = rank is None

    def forward(self, images: Float[Tensor, "n 3 k k"]) -> Float[Tensor, "n 3 s s"]:
        pixels = images.flatten(1)
        if self._is_full:
            mapped = functional.linear(pixels, self.weight, self.bias)
        else:
            mapped = pixels + functional.linear(functional.linear(pixels, self.down), self.up, self.bias)
        return self._resized(mapped.view_as(images))

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 k k"], gradients: Float[Tensor, "n 3 s s"]
    ) -> tuple[JacobianFactor, ...]:
        """`h (x) (x, 1)` with h the gradient before the resize; of a low rank `h (x) (V x, 1)` and `U^T h (x) x`."""
        pixels, rows = images.flatten(1), self._before_resize(gradients).flatten(1)
        if self._is_full:
            return (JacobianFactor(("weight", "bias"), rows, functional.pad(pixels, (0, 1), value=1.0)),)
        up, down = self.up.detach(), self.down.detach()
        return (
            JacobianFactor(("up", "bias"), rows, functional.pad(pixels @ down.T, (0, 1), value=1.0)),
            JacobianFactor(("down",), rows @ up, pixels),
        )

    def _before_resize(self, gradients: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 k k"]:
        with torch.enable_grad():
            leaf = gradients.new_zeros(len(gradients), 3, self.image_size, self.image_size, requires_grad=True)
            (pulled,) = torch.autograd.grad(self._resized(leaf), leaf, gradients)
        return pulled

    def _resized(self, mapped: Float[Tensor, "n 3 k k"]) -> Float[Tensor, "n 3 s s"]:
        if self.image_size == self.canvas_size:
            return mapped
        return functional.interpolate(mapped, size=self.canvas_size, mode="bilinear", align_corners=False)
