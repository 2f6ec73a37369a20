"""The additive prompt of low frequencies: the inverse cosine transform of a few coefficients."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.input_transforms.module import InputTransform, JacobianFactor


class FrequencyTransform(InputTransform):
    """`x + scale * B^T A B` in each of three colours, A the k x k coefficients: 3 k^2 parameters, 0 at first.

    The rows of B are the k lowest basis functions of the orthonormal cosine transform, DCT-II (Ahmed et al., 1974), so
    a coefficient's step is a pattern of that Euclidean length.
    """

    basis: Float[Tensor, "k s"]
    scale: Float[Tensor, "3 1 1"]

    def __init__(self, *, canvas_size: int, n_frequencies: int, scale: Sequence[float]) -> None:
        super().__init__(image_size=canvas_size, canvas_size=canvas_size)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(3, 1, 1), persistent=False)
        basis = cosine_basis(n_frequencies, canvas_size)
        self.register_buffer("basis", basis.float(), persistent=False)
        self.coefficients = nn.Parameter(torch.zeros(3, n_frequencies, n_frequencies))

    def pattern(self) -> Float[Tensor, "3 s s"]:
        """What is added, in pixel space."""
        return self.basis.T @ self.coefficients @ self.basis * self.scale

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3 s s"]:
        return images + self.pattern()

    def picture(self) -> Float[Tensor, "3 s s"]:
        """The pattern around middle grey, clipped to what can be shown."""
        return (0.5 + self.pattern()).clamp(0, 1).detach()

    def jacobian_factors(
        self, images: Float[Tensor, "n 3 s s"], gradients: Float[Tensor, "n 3 s s"]
    ) -> tuple[JacobianFactor]:
        rows = self.basis @ (gradients * self.scale) @ self.basis.T
        return (JacobianFactor(("coefficients",), rows.flatten(1)),)


def cosine_basis(k: int, n: int) -> Float[Tensor, "k n"]:
    """The k lowest rows of the orthonormal DCT-II of length n, in float64."""
    places = torch.arange(n, dtype=torch.float64) + 0.5
    rows = torch.cos(math.pi / n * torch.arange(k, dtype=torch.float64)[:, None] * places) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows
