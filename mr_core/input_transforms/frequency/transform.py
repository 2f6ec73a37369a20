"""The additive prompt of low frequencies: the inverse cosine transform of a few coefficients."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.input_transforms.additive import AdditiveTransform
from mr_core.input_transforms.module import JacobianFactor


class FrequencyTransform(AdditiveTransform):
    """`x + scale * B^T A B` in each of three colours, A the k x k coefficients: 3 k^2 parameters, 0 at first.

    The rows of B are the k lowest basis functions of the orthonormal cosine transform, DCT-II (Ahmed et al., 1974), so
    a coefficient's step is a pattern of that Euclidean length.
    """

    basis: Float[Tensor, "k s"]

    def __init__(self, *, canvas_size: int, n_frequencies: int, scale: Sequence[float]) -> None:
        super().__init__(canvas_size=canvas_size, scale=scale)
        basis = cosine_basis(n_frequencies, canvas_size)
        self.register_buffer("basis", basis.float(), persistent=False)
        self.coefficients = nn.Parameter(torch.zeros(3, n_frequencies, n_frequencies))

    def pattern(self) -> Float[Tensor, "3 s s"]:
        return self.basis.T @ self.coefficients @ self.basis * self.scale

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
