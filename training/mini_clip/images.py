"""Reads the image archives of the shared data folder: `train/<class>/<file>`, `test/<class>/<file>` in a zip."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

CANVAS = 96


def read_split(archive: Path, split: str) -> tuple[list[Image.Image], Int[Tensor, " n"], list[str]]:
    """RGB images of one split in sorted order, their labels, and the sorted class names."""
    with zipfile.ZipFile(archive) as stored:
        names = sorted(name for name in stored.namelist() if not name.endswith("/"))
        classes = sorted({name.split("/")[1] for name in names})
        names = [name for name in names if name.startswith(f"{split}/")]
        images = [Image.open(io.BytesIO(stored.read(name))).convert("RGB") for name in names]
    return images, torch.tensor([classes.index(name.split("/")[1]) for name in names]), classes


def resized(image: Image.Image, size: int = CANVAS) -> Image.Image:
    """Short side to `size` pixels (bicubic), then the central square."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def pixels(images: list[Image.Image]) -> Float[Tensor, "n 3 height width"]:
    """Values in [0, 1]; the images are of one size."""
    stacked = np.stack([np.asarray(image, dtype=np.uint8) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


def normalised(images: Tensor) -> Tensor:
    """From [0, 1] to the range the towers take (mean and standard deviation 0.5)."""
    return (images - 0.5) / 0.5


def readable(class_name: str) -> str:
    """A class folder's name as words: `car_side` -> `car side`."""
    return class_name.replace("_", " ").lower()
