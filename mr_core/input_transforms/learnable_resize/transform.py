"""The frame prompt around an image whose size is learned."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from mr_core.input_transforms.module import InputTransform, JacobianFactor

SCALES = (0.1, 5.0)


class LearnableResizeTransform(InputTransform):
    """`warp(pad(x); c) + sigmoid(delta) M(c)`, 3 S^2 + 1 parameters (arXiv:2310.08381, section 3).

    `warp` scales the padded image about the middle of the canvas by c, bilinearly, with zeros outside; at c = 1 it
    leaves it as it is. M is 1 outside the middle square of `int(k c)` pixels a side. `delta` starts at 0 and is kept
    for the whole canvas, since M moves; where M is 0 its gradient is 0. c is clamped to [0.1, 5] where it is used, and
    in training put back there before a pass.
    """

    def __init__(self, *, image_size: int, canvas_size: int, initial_scale: float) -> None:
        super().__init__(image_size=image_size, canvas_size=canvas_size)
        before = (canvas_size - image_size + 1) // 2
        after = (canvas_size - image_size) // 2
        self._padding = (before, after, before, after)
        self.scale = nn.Parameter(torch.tensor(initial_scale))
        self.delta = nn.Parameter(torch.zeros(3, canvas_size, canvas_size))

    def mask(self) -> Bool[Tensor, "s s"]:
        """Where the frame is."""
        scale = self.scale.detach().clamp(*SCALES)
        side = (self.image_size * scale + 1e-4).floor().clamp(max=self.canvas_size)
        before = ((self.canvas_size - side + 1) / 2).floor()
        at = torch.arange(self.canvas_size, device=scale.device)
        is_inside = (at >= before) & (at < before + side)
        return ~(is_inside[:, None] & is_inside)

    def warped(self, images: Float[Tensor, "n 3 k k"], scale: Float[Tensor, ""]) -> Float[Tensor, "n 3 s s"]:
        """The images on the canvas at that scale."""
        padded = functional.pad(images, self._padding)
        steps = torch.arange(self.canvas_size, device=images.device, dtype=images.dtype)
        # In pixels about the image's own middle, which is half a pixel off the canvas' where k and S differ in parity.
        middle = self._padding[0] + (self.image_size - 1) / 2
        at = (steps - middle) / scale.clamp(*SCALES).to(images.dtype) + middle
        at = (2 * at + 1) / self.canvas_size - 1
        side = (self.canvas_size, self.canvas_size)
        grid = torch.stack([at.expand(side), at[:, None].expand(side)], -1)
        return functional.grid_sample(padded, grid.expand(len(images), -1, -1, -1), align_corners=False)

    def forward(self, images: Float[Tensor, "n 3 k k"]) -> Float[Tensor, "n 3 s s"]:
        if self.training:  # as published: a step that left the range is taken back, and the next has a gradient
            with torch.no_grad():
                self.scale.clamp_(*SCALES)
        return self.warped(images, self.scale) + torch.sigmoid(self.delta) * self.mask()

    def picture(self) -> Float[Tensor, "3 s s"]:
        return (torch.sigmoid(self.delta) * self.mask()).detach()

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 k k"], gradients: Float[Tensor, "n 3 s s"]
    ) -> tuple[JacobianFactor, JacobianFactor]:
        one = torch.ones_like(self.scale)
        with torch.enable_grad():  # the double-backward trick: grid_sample has no forward-mode rule
            scale = self.scale.detach().requires_grad_()
            canvases = self.warped(images, scale)
            samples = [
                torch.autograd.grad((canvas * gradient).sum(), scale, one.new_ones(()), retain_graph=True)[0]
                for canvas, gradient in zip(canvases, gradients, strict=True)
            ]
        sigmoid = torch.sigmoid(self.delta.detach())
        rows = gradients * (sigmoid * (1 - sigmoid) * self.mask())
        return (
            JacobianFactor(("scale",), torch.stack(samples)[:, None].detach()),
            JacobianFactor(("delta",), rows.flatten(1)),
        )
