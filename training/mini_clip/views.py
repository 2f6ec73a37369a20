"""The fixed training set: views of the allowed images and generated scenes, with what the teacher says of each."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from training.mini_clip.images import CANVAS, normalised, pixels, read_split, readable
from training.mini_clip.scenes import generate

TEACHER_SIZE = 224
TEACHER_BATCH = 16
FRAMED_SHARE = 0.12


@dataclass(frozen=True)
class Views:
    """`images` at canvas size, teacher embeddings and logits of the same views at 224 px, a caption each.

    `kinds` is `caltech101`, `pneumoniamnist` or `scene`; `labels` are Caltech class indices and -1 elsewhere.
    """

    images: UInt8[Tensor, "n 3 96 96"]
    embeddings: Float[Tensor, "n 1280"]
    logits: Float[Tensor, "n 1000"]
    captions: list[str]
    kinds: list[str]
    labels: Int[Tensor, " n"]
    caltech_names: list[str]


def build_views(data: Path, teacher: Any, *, crops: int, lungs: int, scenes: int, seed: int) -> Views:
    """`crops` views of each Caltech-101 training image, one of `lungs` pneumoniamnist training images, and scenes."""
    rng = random.Random(seed)
    photos, photo_labels, classes = read_split(data / "images" / "caltech101.zip", "train")
    names = [readable(name) for name in classes]
    rows: list[tuple[Image.Image, str, str, int]] = []
    for image, label in zip(photos, photo_labels.tolist(), strict=True):
        rows += [(view(image, rng), f"a photo of a {names[label]}", "caltech101", label) for _ in range(crops)]
    chest, _, _ = read_split(data / "images" / "pneumoniamnist.zip", "train")
    for index in rng.sample(range(len(chest)), lungs):
        rows.append((view(chest[index], rng), "a chest x-ray", "pneumoniamnist", -1))
    for _ in range(scenes):
        scene = generate(rng)
        rows.append((framed(scene.image, rng), scene.caption(rng), "scene", -1))
    embeddings, logits = teacher_outputs(teacher, [row[0] for row in rows])
    small = [row[0].resize((CANVAS, CANVAS), Image.Resampling.BICUBIC) for row in rows]
    return Views(
        images=(pixels(small) * 255).round().to(torch.uint8),
        embeddings=embeddings,
        logits=logits,
        captions=[row[1] for row in rows],
        kinds=[row[2] for row in rows],
        labels=torch.tensor([row[3] for row in rows]),
        caltech_names=names,
    )


def view(image: Image.Image, rng: random.Random) -> Image.Image:
    """A random square crop at the teacher's size: flipped, recoloured a little, sometimes inside a frame."""
    side = min(image.size) * rng.uniform(0.6, 1.0)
    left, top = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
    crop = image.resize((TEACHER_SIZE, TEACHER_SIZE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        crop = enhancer(crop).enhance(rng.uniform(0.75, 1.25))
    return framed(crop, rng)


def framed(image: Image.Image, rng: random.Random) -> Image.Image:
    """Now and then the image shrunk into a canvas with a grey or noisy border, as a frame prompt has it."""
    if rng.random() >= FRAMED_SHARE:
        return image
    noise = np.random.default_rng(rng.getrandbits(32))
    coarse = noise.normal(128, rng.choice((0, 20, 60)), (TEACHER_SIZE // 4, TEACHER_SIZE // 4, 3))
    canvas = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    side = rng.randint(TEACHER_SIZE * 2 // 5, TEACHER_SIZE * 4 // 5)
    corner = (TEACHER_SIZE - side) // 2
    canvas.paste(image.resize((side, side), Image.Resampling.BICUBIC), (corner, corner))
    return canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1)))


@torch.no_grad()
def teacher_outputs(teacher: Any, images: list[Image.Image]) -> tuple[Float[Tensor, "n 1280"], Float[Tensor, "n 1000"]]:
    """Embeddings and logits of the teacher's trunk at 224 px."""
    found = []
    for start in range(0, len(images), TEACHER_BATCH):
        batch = normalised(pixels(images[start : start + TEACHER_BATCH])).contiguous(memory_format=torch.channels_last)
        found.append(teacher.forward_head(teacher.forward_features(batch), pre_logits=True))
    embeddings = torch.cat(found)
    logits: Tensor = teacher.classifier(embeddings)
    return embeddings, logits
