"""The additive prompt: the image at the size of the canvas plus a learnable pattern."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mr_core.input_transforms.module import InputTransform, JacobianFactor


class WatermarkTransform(InputTransform):
    """`x + scale * delta` where the pattern lies, `x` elsewhere (arXiv:2203.17274, equation 1).

    Adding delta after normalisation is adding `std * delta` before it, so canvases stay in pixel space; like the
    published code this does not clip them to [0, 1]. Only the pattern's entries are parameters: 3 S^2 of them, or
    3 (S^2 - (S - 2 w)^2) along the edge (69,840 of w = 30 and S = 224).
    """

    entries: Int[Tensor, " p"]  # of the flattened canvas, in the order of delta
    scale: Float[Tensor, "3 1 1"]

    def __init__(self, *, canvas_size: int, width: int | None, scale: Sequence[float]) -> None:
        super().__init__(image_size=canvas_size, canvas_size=canvas_size)
        pattern = torch.ones(3, canvas_size, canvas_size, dtype=torch.bool)
        if width is not None:
            pattern[:, width : canvas_size - width, width : canvas_size - width] = False
        self.register_buffer("entries", pattern.flatten().nonzero().squeeze(1), persistent=False)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.delta = nn.Parameter(torch.zeros(len(self.entries)))

    def pattern(self) -> Float[Tensor, "3 s s"]:
        """What is added, in pixel space; 0 where nothing is."""
        canvas = self.delta.new_zeros(3 * self.canvas_size**2).index_copy(0, self.entries, self.delta)
        return canvas.view(3, self.canvas_size, self.canvas_size) * self.scale

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
        return images + self.pattern()

    def picture(self) -> Float[Tensor, "3 s s"]:
        """The pattern around middle grey, clipped to what can be shown."""
        return (0.5 + self.pattern()).clamp(0, 1).detach()

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 s s"], gradients: Float[Tensor, "n 3 s s"]
    ) -> tuple[JacobianFactor]:
        return (JacobianFactor(("delta",), (gradients * self.scale).flatten(1)[:, self.entries]),)
