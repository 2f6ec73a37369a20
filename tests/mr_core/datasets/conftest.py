"""Builds archives, honest and hostile, out of small images."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def _encode(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, image_format, **options)
    return encoded.getvalue()


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """The bytes of an image in a format."""
    return _encode


@pytest.fixture(scope="session")
def noise() -> Callable[..., Image.Image]:
    """An RGB image of noise, the same for the same seed."""

    def build(seed: int = 0, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Image.Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        return Image.fromarray(pixels).convert(mode)

    return build


@pytest.fixture(scope="session")
def png(noise: Callable[..., Image.Image]) -> Callable[..., bytes]:
    """A png of noise, the same for the same seed."""
    return lambda seed=0, **options: _encode(noise(seed, **options))


@pytest.fixture
def tree(png: Callable[..., bytes]) -> Callable[..., dict[str, bytes]]:
    """Files `<prefix><class>/<i>.png`, every image different from all others."""

    def build(counts: Mapping[str, int], prefix: str = "", seed: int = 0) -> dict[str, bytes]:
        names = [f"{prefix}{name}/{i}.png" for name, n in counts.items() for i in range(n)]
        return {name: png(seed + i) for i, name in enumerate(names)}

    return build


@pytest.fixture
def both(tree: Callable[..., dict[str, bytes]]) -> dict[str, bytes]:
    """The plainest good dataset: two classes, three images each to train, two to test."""
    return tree({"train/cat": 3, "train/dog": 3}) | tree({"test/cat": 2, "test/dog": 2}, seed=100)


@pytest.fixture
def write_zip(tmp_path: Path) -> Callable[..., Path]:
    """A zip of files by name, the same bytes whenever it is written; a name that ends in / is a folder."""

    def write(files: Mapping[str, bytes], name: str = "data.zip", method: int = zipfile.ZIP_DEFLATED) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for file, data in files.items():
                info = zipfile.ZipInfo(file)
                info.external_attr = 0o40775 << 16 | 0x10 if file.endswith("/") else 0o600 << 16
                archive.writestr(info, data, compress_type=method)
        return tmp_path / name

    return write


@pytest.fixture
def write_tar(tmp_path: Path) -> Callable[..., Path]:
    """A tar of files by name, gzipped by default; `extra` entries come as TarInfo."""

    def write(
        files: Mapping[str, bytes],
        name: str = "data.tar.gz",
        mode: str = "w:gz",
        extra: tuple[tarfile.TarInfo, ...] = (),
    ) -> Path:
        with tarfile.open(tmp_path / name, mode) as archive:
            for info in extra:
                archive.addfile(info)
            for file, data in files.items():
                info = tarfile.TarInfo(file)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return tmp_path / name

    return write
