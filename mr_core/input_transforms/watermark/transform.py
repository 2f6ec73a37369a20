"""The additive prompt: the image at the size of the canvas plus a learnable pattern."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mr_core.input_transforms.additive import AdditiveTransform
from mr_core.input_transforms.module import JacobianFactor


class WatermarkTransform(AdditiveTransform):
    """`x + scale * delta` where the pattern lies, `x` elsewhere (arXiv:2203.17274, equation 1).

    Only the pattern's entries are parameters: 3 S^2 of them, or 3 (S^2 - (S - 2 w)^2) along the edge (69,840 of w = 30
    and S = 224).
    """

    entries: Int[Tensor, " p"]  # of the flattened canvas, in the order of delta

    def __init__(self, *, canvas_size: int, width: int | None, scale: Sequence[float]) -> None:
        super().__init__(canvas_size=canvas_size, scale=scale)
        pattern = torch.ones(3, canvas_size, canvas_size, dtype=torch.bool)
        if width is not None:
            pattern[:, width : canvas_size - width, width : canvas_size - width] = False
        self.register_buffer("entries", pattern.flatten().nonzero().squeeze(1), persistent=False)
        self.delta = nn.Parameter(torch.zeros(len(self.entries)))

    def pattern(self) -> Float[Tensor, "3 s s"]:
        canvas = self.delta.new_zeros(3 * self.canvas_size**2).index_copy(0, self.entries, self.delta)
        return canvas.view(3, self.canvas_size, self.canvas_size) * self.scale

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 s s"], gradients: Float[Tensor, "n 3 s s"]
    ) -> tuple[JacobianFactor]:
        return (JacobianFactor(("delta",), (gradients * self.scale).flatten(1)[:, self.entries]),)
