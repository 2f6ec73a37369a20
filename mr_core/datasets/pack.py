"""The pack: a checked dataset as one stored zip of lossless PNG images, `<split>/<class>/<name>.png`.

Entries have fixed times and no compression of their own, so equal images in equal order give equal bytes,
and an image is read with one seek.
"""

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from PIL import Image

from mr_core.datasets.images import ACCEPTED_FORMATS
from mr_core.datasets.limits import DEFAULT_LIMITS
from mr_core.errors import ArchiveError, UnreadableImage

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

_MARK = b"mr dataset pack 1"
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., length of the name, length of the extra field


@dataclass(frozen=True, slots=True)
class PackEntry:
    """One image of a pack: where its bytes are, and what its path says."""

    split: Split
    class_name: str
    name: str
    header_offset: int
    n_bytes: int

    @property
    def path(self) -> str:
        return f"{self.split}/{self.class_name}/{self.name}"


class PackWriter:
    """Appends images to a pack; it is the caller's to see that no path comes twice."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.is_kept = True
        archive.comment = _MARK

    def add(self, image: Image.Image, *, split: Split, class_name: str, name: str) -> None:
        """Append an image of mode L or RGB; what it carries beside its pixels is not written."""
        encoded = BytesIO()
        Image.frombytes(image.mode, image.size, image.tobytes()).save(encoded, "PNG", compress_level=1)
        entry = zipfile.ZipInfo(f"{split}/{class_name}/{name}")  # dated 1980-01-01
        entry.create_system = 3
        entry.external_attr = 0o644 << 16
        self._archive.writestr(entry, encoded.getvalue())

    def discard(self) -> None:
        """Leave no pack behind when the block ends."""
        self.is_kept = False


@contextmanager
def write_pack(destination: Path) -> Iterator[PackWriter]:
    """A writer to `destination`, which appears whole or not at all, when the block ends without an error."""
    partial = destination.with_name(destination.name + ".part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
            writer = PackWriter(archive)
            yield writer
        if writer.is_kept:
            partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)


def is_pack(path: Path) -> bool:
    """Whether the file ends with the mark of a pack."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_MARK)))
        return file.read() == _MARK


def pack_entries(path: Path) -> list[PackEntry]:
    """The images of a pack, ordered by path; ArchiveError where the file is not a pack."""
    if not is_pack(path):
        raise ArchiveError(f"{path.name} is not a packed dataset; open_dataset takes any accepted archive")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [_entry(info) for info in archive.infolist()]
    except (zipfile.BadZipFile, ValueError) as error:
        raise ArchiveError(f"the packed dataset {path.name} is damaged: {error}") from error
    return sorted(entries, key=lambda entry: entry.path)


def read_packed(file: BinaryIO, entry: PackEntry) -> Image.Image:
    """The image of an entry, in mode L or RGB; UnreadableImage where the pack is damaged."""
    try:
        file.seek(entry.header_offset)
        signature, n_name, n_extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if signature != b"PK\x03\x04":
            raise ValueError("no entry where the directory names one")
        file.seek(n_name + n_extra, 1)
        image = Image.open(BytesIO(file.read(entry.n_bytes)), formats=ACCEPTED_FORMATS)
        if image.width * image.height > DEFAULT_LIMITS.image_pixels:
            raise ValueError(f"{image.width} x {image.height} pixels")
        image.load()
    except Exception as error:  # on damaged bytes the decoders raise OSError, SyntaxError, struct.error and others
        raise UnreadableImage(f"{entry.path} cannot be read from the packed dataset: {error}") from error
    return image


def _entry(info: zipfile.ZipInfo) -> PackEntry:
    parts = info.filename.split("/")
    if len(parts) != 3 or parts[0] not in SPLITS or info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"unexpected entry {info.filename!r}")
    split: Split = "train" if parts[0] == "train" else "test"
    return PackEntry(split, parts[1], parts[2], info.header_offset, info.file_size)
