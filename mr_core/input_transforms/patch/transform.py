"""The patch prompt: a square that is added to the image."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mr_core.input_transforms.module import InputTransform, JacobianFactor

_MODULUS = 2**31 - 1
_MULTIPLIER = 48_271  # of the minimal standard generator (Park and Miller, 1988)


class PatchTransform(InputTransform):
    """`x + scale * delta` on a square of p pixels a side: 3 p^2 parameters, 0 at first (arXiv:2203.17274)."""

    scale: Float[Tensor, "3 1 1"]
    weights: Int[Tensor, " d"]

    def __init__(self, *, canvas_size: int, size: int, is_moving: bool, scale: Sequence[float]) -> None:
        super().__init__(image_size=canvas_size, canvas_size=canvas_size)
        self.size, self.is_moving = size, is_moving
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(3, 1, 1), persistent=False)
        generator = torch.Generator().manual_seed(0)
        weights = torch.randint(1, 2**20, (3 * canvas_size**2,), generator=generator)
        self.register_buffer("weights", weights, persistent=False)
        self.delta = nn.Parameter(torch.zeros(3, size, size))

    def corners(self, images: Float[Tensor, "n 3 s s"]) -> Int[Tensor, "n 2"]:
        """Row and column of each square's upper left corner: 0, or drawn from the image's pixels as bytes."""
        if not self.is_moving:
            return torch.zeros(len(images), 2, dtype=torch.int64, device=images.device)
        pixels = (images.detach() * 255).round().to(torch.int64).flatten(1)
        drawn = (pixels * self.weights).sum(1) % _MODULUS
        room = self.canvas_size - self.size + 1
        rows = drawn * _MULTIPLIER % _MODULUS
        return torch.stack([rows % room, rows * _MULTIPLIER % _MODULUS % room], 1)

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
        prompts = torch.zeros_like(images)
        values = (self.delta * self.scale).permute(1, 2, 0).to(images.dtype)
        return images + prompts.index_put(self._entries(images), values.expand(len(images), -1, -1, -1))

    def picture(self) -> Float[Tensor, "3 s s"]:
        """The patch in the corner of a grey canvas, clipped to what can be shown."""
        canvas = torch.full((3, self.canvas_size, self.canvas_size), 0.5)
        canvas[:, : self.size, : self.size] += (self.delta * self.scale).detach().cpu()
        return canvas.clamp(0, 1)

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 s s"], gradients: Float[Tensor, "n 3 s s"]
    ) -> tuple[JacobianFactor]:
        rows = (gradients * self.scale)[self._entries(images)].permute(0, 3, 1, 2)
        return (JacobianFactor(("delta",), rows.flatten(1)),)

    def _entries(self, images: Float[Tensor, "n 3 s s"]) -> tuple[Tensor, ...]:
        """The squares' places in the batch, `(n, p, p, 3)` by broadcasting."""
        reach = torch.arange(self.size, device=images.device)
        corners = self.corners(images)
        rows, columns = (corners[:, axis, None] + reach for axis in (0, 1))
        samples = torch.arange(len(images), device=images.device)
        colours = torch.arange(3, device=images.device)
        return samples[:, None, None, None], colours, rows[:, :, None, None], columns[:, None, :, None]
