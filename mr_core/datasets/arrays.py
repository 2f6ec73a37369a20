"""Datasets as arrays: the .npy files of an npz, read a row at a time and never unpickled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import prod

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mr_core.datasets.layout import Arrangement, Sample
from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.members import Member, NameGuard, is_system_path, named
from mr_core.datasets.pack import SPLITS, Split
from mr_core.datasets.zip_reader import ZipReader
from mr_core.errors import ArchiveError, ArchiveTooLarge, DatasetError, UnknownLayout, UnreadableImage, UnsafeArchive

_EXPECTED = "x_train, y_train and, where there is a test split, x_test and y_test"
_HEADER_BYTES = 2**16
_LABEL_BYTES = 64 * 2**20
_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class ArrayHeader:
    """What the start of an .npy file declares."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    n_header_bytes: int


def has_arrays(members: Sequence[Member]) -> bool:
    """Whether a zip is an npz: .npy files at its root, whatever else there is."""
    return any(len(member.parts) == 1 and member.suffix == ".npy" for member in members)


class ArrayReader:
    """The images and labels of an npz: `x_*` uint8 or float `(n, h, w)` or `(n, h, w, c)`, c 1 or 3; `y_*` `(n,)`.

    Labels are whole numbers or strings, and become class names. Float images are in [0, 1] where no value
    of either split is above 1, otherwise in [0, 255].
    """

    def __init__(self, reader: ZipReader, members: Sequence[Member], limits: ArchiveLimits) -> None:
        self._reader = reader
        self._limits = limits
        self._members = {
            member.name.removesuffix(".npy"): member for member in members if not is_system_path(member.parts)
        }
        wanted = {f"{axis}_{split}" for axis in "xy" for split in SPLITS}
        found = set(self._members)
        if not {"x_train", "y_train"} <= found or found - wanted or len(found) % 2:
            raise UnknownLayout(f"the npz has the arrays {named(sorted(found))}; expected {_EXPECTED}")
        self._splits: tuple[Split, ...] = SPLITS if "x_test" in found else ("train",)
        self._headers = {name: self._header(name) for name in found}
        for split in self._splits:
            self._check_images(split)

    def arrangement(self) -> Arrangement:
        """A sample for each row, called `x_train[0]` and so on."""
        guard = NameGuard(self._limits)
        samples: list[Sample] = []
        for split in self._splits:
            for row, label in enumerate(self._labels(split)):
                if "/" in label or label.startswith(".") or not guard.parts(label, is_folder=True):
                    raise UnknownLayout(f"y_{split}[{row}] is {label!r}, which is no name for a class")
                samples.append(Sample(f"x_{split}[{row}]", split, label))
        if len(samples) > self._limits.entries:
            raise ArchiveTooLarge(f"{len(samples)} images, the limit is {self._limits.entries}")
        return Arrangement("arrays", tuple(samples))

    def images(self) -> Iterator[tuple[str, Image.Image | UnreadableImage]]:
        """Each row as an image of mode L or RGB, or as the error that says what is wrong with it.

        DatasetError where float values lie outside both ranges.
        """
        scale = self._float_scale()
        for split in self._splits:
            for row, pixels in enumerate(self._rows(f"x_{split}")):
                name = f"x_{split}[{row}]"
                if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
                    what = "NaN" if np.isnan(pixels).any() else "an infinite value"
                    yield name, UnreadableImage(f"row {row} of x_{split} has {what}")
                    continue
                if pixels.dtype.kind == "f":
                    pixels = np.rint(pixels.astype(np.float64) * scale).astype(np.uint8)
                yield name, Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels)

    def _float_scale(self) -> float:
        """What float values are multiplied by; 1 where there are none."""
        lowest, highest = 0.0, 0.0
        for split in self._splits:
            if self._headers[f"x_{split}"].dtype.kind != "f":
                continue
            for row, pixels in enumerate(self._rows(f"x_{split}")):
                finite = pixels[np.isfinite(pixels)]
                if not finite.size:
                    continue
                lowest, highest = min(lowest, float(finite.min())), max(highest, float(finite.max()))
                if lowest < 0 or highest > 255:
                    raise DatasetError(
                        f"row {row} of x_{split} has values from {finite.min():g} to {finite.max():g}; "
                        "expected pixels from 0 to 1, or from 0 to 255"
                    )
        return 255.0 if highest <= 1 else 1.0

    def _rows(self, name: str) -> Iterator[NDArray[np.generic]]:
        """Rows of an array in turn, each `(h, w)` or `(h, w, c)`."""
        header = self._headers[name]
        n_row_bytes = prod(header.shape[1:]) * header.dtype.itemsize
        n_rows = 0
        with self._reader.stream(self._members[name].name) as pieces:
            buffer = bytearray()
            n_skipped = header.n_header_bytes
            for piece in pieces:
                buffer += piece[n_skipped:]
                n_skipped = max(0, n_skipped - len(piece))
                n_whole = len(buffer) // n_row_bytes
                for i in range(n_whole):
                    row = bytes(memoryview(buffer)[i * n_row_bytes : (i + 1) * n_row_bytes])
                    yield np.frombuffer(row, dtype=header.dtype).reshape(header.shape[1:])
                del buffer[: n_whole * n_row_bytes]
                n_rows += n_whole
        if n_rows != header.shape[0]:
            raise ArchiveError(f"{name} holds {n_rows} rows and declares {header.shape[0]}")

    def _labels(self, split: Split) -> list[str]:
        name = f"y_{split}"
        header, member = self._headers[name], self._members[name]
        if header.dtype.kind not in "iubU" or len(header.shape) not in (1, 2) or prod(header.shape[1:]) != 1:
            raise UnknownLayout(
                f"{name} is {header.dtype} of shape {header.shape}; expected whole numbers or strings, one a row"
            )
        n_images = self._headers[f"x_{split}"].shape[0]
        if header.shape[0] != n_images:
            raise UnknownLayout(f"{name} has {header.shape[0]} labels, x_{split} has {n_images} images")
        if member.n_bytes > _LABEL_BYTES:
            raise ArchiveTooLarge(f"{name} has {member.n_bytes} bytes, the limit is {_LABEL_BYTES}")
        with self._reader.stream(member.name) as pieces:
            data = b"".join(pieces)[header.n_header_bytes :]
        try:
            values = np.frombuffer(data, dtype=header.dtype).tolist()
        except ValueError as error:  # a code point that does not exist
            raise UnknownLayout(f"{name} cannot be read: {error}") from error
        return [str(int(value)) if isinstance(value, bool) else str(value) for value in values]

    def _check_images(self, split: Split) -> None:
        name = f"x_{split}"
        header = self._headers[name]
        shape = header.shape
        if header.dtype != np.uint8 and header.dtype.newbyteorder("=").name not in _FLOATS:
            raise UnknownLayout(f"{name} is {header.dtype}; expected uint8 or float images")
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape:
            raise UnknownLayout(f"{name} has shape {shape}; expected (n, h, w) or (n, h, w, c) with c 1 or 3")
        if shape[1] * shape[2] > self._limits.image_pixels:
            raise ArchiveTooLarge(f"{name} has images of {shape[1]} x {shape[2]} pixels, over the limit")
        if shape[0] > self._limits.entries:
            raise ArchiveTooLarge(f"{name} has {shape[0]} images, the limit is {self._limits.entries}")

    def _header(self, name: str) -> ArrayHeader:
        """The header of an .npy file; UnsafeArchive where it holds objects, which only unpickling could read."""
        member = self._members[name]
        with self._reader.stream(member.name) as pieces:
            start = BytesIO(next(pieces, b"")[:_HEADER_BYTES])
        try:
            version = np.lib.format.read_magic(start)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(start)
        except (ValueError, SyntaxError, TypeError, EOFError) as error:
            raise ArchiveError(f"{name} is not a readable .npy array: {error}") from error
        if dtype.hasobject or dtype.names is not None:
            raise UnsafeArchive(f"{name} holds {dtype}, which is read by unpickling; expected plain numbers or strings")
        if is_fortran and sum(side > 1 for side in shape) > 1:
            raise UnknownLayout(f"{name} is in Fortran order; save numpy.ascontiguousarray of it")
        if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != member.n_bytes - start.tell():
            raise ArchiveError(f"{name} declares {dtype} {shape}, which is not what its {member.n_bytes} bytes hold")
        return ArrayHeader(shape=tuple(shape), dtype=dtype, n_header_bytes=start.tell())
