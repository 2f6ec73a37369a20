"""Flips and small turns of training images, the same for the same seed, epoch and image."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mr_core.trainers.trainer import LabelledImages, LabelledInputs

MOST_DEGREES = 15.0


@dataclass(frozen=True)
class AugmentedImages(LabelledInputs):
    """Each image mirrored with probability 1/2 and turned by up to 15 degrees, in training alone.

    What happens to an image in an epoch depends on seed, epoch and its place alone, so a training resumes anywhere.
    """

    images: LabelledImages
    flips: NDArray[np.bool_] | None = None
    angles: NDArray[np.float64] | None = None  # radians

    @property
    def labels(self) -> NDArray[np.int64]:  # type: ignore[override]
        return self.images.labels

    def at_epoch(self, epoch: int, seed: int) -> "AugmentedImages":
        generator = np.random.default_rng([seed, epoch, 1])  # [seed, epoch] draws the order of the images
        n, most = len(self.images), math.radians(MOST_DEGREES)
        return AugmentedImages(self.images, generator.random(n) < 0.5, generator.uniform(-most, most, n))

    def batch(self, indices: NDArray[np.int64] | slice, device: torch.device) -> Float[Tensor, "n 3 k k"]:
        """Those images in [0, 1], as the epoch has them; as they are before any epoch."""
        images = self.images.batch(indices, device)
        if self.flips is None or self.angles is None:
            return images
        return turned(images, flips=self.flips[indices], angles=self.angles[indices])


def turned(
    images: Float[Tensor, "n 3 k k"], *, flips: NDArray[np.bool_], angles: NDArray[np.float64]
) -> Float[Tensor, "n 3 k k"]:
    """Bilinear; what comes from outside the image is black."""
    cosines, sines = np.cos(angles), np.sin(angles)
    signs = np.where(flips, -1.0, 1.0)
    rows = np.stack([signs * cosines, -signs * sines, 0 * sines, sines, cosines, 0 * sines], axis=1)
    matrices = torch.from_numpy(rows.reshape(-1, 2, 3)).to(images)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
