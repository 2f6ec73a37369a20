"""Tangent kernels of infinitely wide networks, in closed form."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 1e-14


def fully_connected_ntk(
    inputs: Float[Tensor, "n d"], *, depth: int, weight_variance: float = 2.0, bias_variance: float = 0.1
) -> Float[Tensor, "n n"]:
    """Of `depth` hidden layers with ReLU and a linear one, as their width grows; float64, one and the same an output.

    Jacot et al., 2018, arXiv:1806.07572, theorem 1, in NTK parametrisation: `z = sqrt(v_w / fan_in) W h + sqrt(v_b) b`
    with unit Gaussian W and b, all of which train. By layers, with the arc-cosine kernels of Cho and Saul, 2009:

        S_0 = T_0 = v_w X X^T / d + v_b
        S_l = v_w k_1(S_{l-1}) + v_b,    T_l = S_l + T_{l-1} * v_w k_0(S_{l-1})

    k_1 and k_0 being the means of `relu(u) relu(v)` and `relu'(u) relu'(v)` over (u, v) ~ N(0, S).
    """
    wide = inputs.to(torch.float64)
    covariance = weight_variance * (wide @ wide.T) / wide.shape[1] + bias_variance
    kernel = covariance
    for _ in range(depth):
        scales = covariance.diagonal().sqrt()
        norms = scales[:, None] * scales[None, :]
        cosines = (covariance / norms.clamp(min=torch.finfo(torch.float64).tiny)).clamp(-1, 1)
        cosines[cosines > 1 - ROUNDING] = 1.0  # of equal points; their angle would come out as 1e-8
        angles = torch.arccos(cosines)
        derivative = (math.pi - angles) / (2 * math.pi)
        activation = norms * (torch.sin(angles) + (math.pi - angles) * cosines) / (2 * math.pi)
        covariance = weight_variance * activation + bias_variance
        kernel = covariance + kernel * (weight_variance * derivative)
    return (kernel + kernel.T) / 2
