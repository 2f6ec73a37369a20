"""The gradient to the input of a strided convolution, as an ordinary convolution at the resolution of its output.

Every stride-th row and column of the input sees the same few weights, so the gradient to each of these interleaved
grids is a small convolution of stride 1 (the sub-pixel convolution of Shi et al., 2016, arXiv:1609.05158, backwards).
oneDNN's own gradient is slow where the input has few channels, as images have: this one takes a third to a half of
its time on the first convolution of MobileNetV2 and ResNet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class SubPixelGradient:
    """`gradient to output (n, o, h', w') -> gradient to input (n, c, h, w)` of one frozen convolution."""

    weight: Tensor  # (stride * stride * c, o, d, d): the weights each grid sees, grids in row-major order
    stride: int
    channels: int
    padding: int
    first: int  # row and column of the small convolution that belongs to the input's first

    @classmethod
    def of(cls, weight: Float[Tensor, "o c k k"], *, stride: int, padding: int) -> SubPixelGradient:
        """For an ungrouped convolution without dilation, padded evenly by `padding`.

        With y[i] = sum_k w[k] x[s i + k - p], the gradient to x[s m + r] is sum_d g[m - d] w[s d + r + p].
        """
        kernel = weight.shape[-1]
        latest = (kernel - 1 - padding) // stride
        earliest = math.ceil(-(stride - 1 + padding) / stride)
        width = latest - earliest + 1
        grids = weight.new_zeros(stride, stride, weight.shape[1], len(weight), width, width)
        for (row, column), (i, j) in _pairs(stride, width):
            y, x = (stride * (latest - step) + grid + padding for grid, step in ((row, i), (column, j)))
            if 0 <= y < kernel and 0 <= x < kernel:
                grids[row, column, :, :, i, j] = weight[:, :, y, x].T
        reach = max(latest, -earliest)
        return cls(
            weight=grids.flatten(0, 2).contiguous(memory_format=torch.channels_last),
            stride=stride,
            channels=weight.shape[1],
            padding=reach,
            first=reach - latest,
        )

    def __call__(self, gradient: Float[Tensor, "n o p q"], size: tuple[int, int]) -> Float[Tensor, "n c h w"]:
        """`size` is (h, w), each at most `stride` times that of the gradient."""
        height, width = (math.ceil(side / self.stride) for side in size)
        grids = functional.conv2d(gradient, self.weight, padding=self.padding)
        grids = grids[:, :, self.first : self.first + height, self.first : self.first + width]
        whole = grids.permute(0, 2, 3, 1).reshape(-1, width, self.stride, self.stride * self.channels)
        whole = whole.transpose(1, 2).reshape(-1, height * self.stride, width * self.stride, self.channels)
        return whole.permute(0, 3, 1, 2)[:, :, : size[0], : size[1]]


def _pairs(stride: int, width: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    grids = [(row, column) for row in range(stride) for column in range(stride)]
    return [(grid, (i, j)) for grid in grids for i in range(width) for j in range(width)]
