"""The datasets of the grid: small, with enough test images to tell 5 points apart, made from real and generated images.

Where the published splits leave too few test images they are pooled and divided anew, by name, class by class.
"""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

Member = tuple[str, str, bytes]  # class, file name, content
DOMAINS = ("photo", "art_painting", "cartoon", "sketch")
FILLING = ("stripes", "checks", "dots", "rings")


@dataclass(frozen=True)
class Set:
    """How to make a dataset. `leaks` names backbones that have seen its images or that were made for its domain."""

    archive: Callable[[Path], BinaryIO]
    n_classes: int
    leaks: frozenset[str] = frozenset()


def _of(
    name: str, *, train: int, test: int, n_classes: int | None = None, first_class: int = 0
) -> Callable[[Path], BinaryIO]:
    """Classes of one archive of the test data; so many images of each for either split."""

    def archive(data: Path) -> BinaryIO:
        members = list(_members(data / "images" / f"{name}.zip"))
        classes = sorted({label for label, _, _ in members})
        last = None if n_classes is None else first_class + n_classes
        return _divided(members, classes[first_class:last], train=train, test=test)

    return archive


def _pacs(data: Path, *, label: str, train: int, test: int) -> BinaryIO:
    """The four domains of PACS together, labelled by `class` or by `domain`."""
    members = [
        (category if label == "class" else domain, f"{domain}-{category}-{file}", content)
        for domain in DOMAINS
        for category, file, content in _members(data / "images" / f"pacs_{domain}.zip")
    ]
    return _divided(members, sorted({member[0] for member in members}), train=train, test=test)


def _digits(_: Path, *, train: int, test: int) -> BinaryIO:
    from sklearn.datasets import load_digits

    digits = load_digits()
    members = [
        (str(label), f"{index:04}.png", _png(np.rint(image * (255 / 16))))
        for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True))
    ]
    return _divided(members, [str(digit) for digit in range(10)], train=train, test=test)


def _textures(_: Path, *, train: int, test: int) -> BinaryIO:
    """Generated: patterns of four kinds in random colours, sizes, turns and noise."""
    generator = np.random.default_rng(0)
    members = [
        (filling, f"{index:04}.png", _png(_texture(filling, generator)))
        for filling in FILLING
        for index in range(train + test)
    ]
    return _divided(members, sorted(FILLING), train=train, test=test)


SETS: Mapping[str, Set] = {
    "cifar10": Set(_of("cifar10", train=45, test=40), 10, leaks=frozenset({"resnet20", "resnet56"})),
    "mnist": Set(_of("mnist", train=45, test=40), 10),
    "digits": Set(partial(_digits, train=45, test=40), 10),
    "gtsrb": Set(_of("gtsrb", train=25, test=20, n_classes=10), 10),
    "gtsrb_later": Set(_of("gtsrb", train=25, test=20, n_classes=10, first_class=30), 10),
    "caltech101": Set(
        _of("caltech101", train=8, test=10, n_classes=20), 20, leaks=frozenset({"cliptext", "mini-clip"})
    ),
    "pneumonia": Set(_of("pneumoniamnist", train=117, test=117), 2, leaks=frozenset({"mini-clip"})),
    "pacs": Set(partial(_pacs, label="class", train=60, test=60), 7),
    "pacs_domain": Set(partial(_pacs, label="domain", train=105, test=105), 4),
    "textures": Set(partial(_textures, train=75, test=75), 4),
}


def _members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as source:
        for name in sorted(source.namelist()):
            if not name.endswith("/"):
                split, label, file = name.split("/", 2)
                yield label, f"{split}-{file.replace('/', '-')}", source.read(name)


def _divided(members: list[Member], classes: list[str], *, train: int, test: int) -> BinaryIO:
    """The same division whenever it is made: each class in an order drawn under seed 0."""
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w") as target:
        for label in classes:
            inside = sorted((file, content) for other, file, content in members if other == label)
            if len(inside) < train + test:
                raise ValueError(f"class {label} has {len(inside)} images, {train} + {test} were expected")
            order = np.random.default_rng(0).permutation(len(inside))
            for place, index in enumerate(order[: train + test]):
                file, content = inside[index]
                target.writestr(f"{'train' if place < train else 'test'}/{label}/{file}", content)
    kept.seek(0)
    return kept


def _texture(filling: str, generator: np.random.Generator) -> np.ndarray:
    side, period, turn = 48, generator.uniform(6, 16), generator.uniform(0, np.pi)
    x, y = np.meshgrid(*[np.arange(side) + generator.uniform(0, side)] * 2)
    across = (x * np.cos(turn) + y * np.sin(turn)) / period
    along = (y * np.cos(turn) - x * np.sin(turn)) / period
    pattern = {
        "stripes": np.sin(2 * np.pi * across) > 0,
        "checks": (np.sin(2 * np.pi * across) > 0) ^ (np.sin(2 * np.pi * along) > 0),
        "dots": ((across % 1) - 0.5) ** 2 + ((along % 1) - 0.5) ** 2 < 0.1,
        "rings": np.sin(2 * np.pi * np.hypot(x - x.mean(), y - y.mean()) / period) > 0,
    }[filling]
    back, front = generator.uniform(0, 255, size=(2, 3))
    image = np.where(pattern[..., None], front, back) + generator.normal(0, 40, size=(side, side, 3))
    return np.clip(np.rint(image), 0, 255)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(buffer, format="png")
    return buffer.getvalue()
