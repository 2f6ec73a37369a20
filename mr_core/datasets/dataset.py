"""A dataset as the jobs use it: classes, labels, and images decoded to one size in a file of the job's own."""

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mr_core.backbones.description import Interpolation
from mr_core.datasets.images import prepare_image
from mr_core.datasets.pack import SPLITS, PackEntry, Split, is_pack, pack_entries, read_packed
from mr_core.datasets.validate import pack_archive
from mr_core.errors import ArchiveError
from mr_core.input_transforms.base import Fit

_CHUNK = 32  # images a thread decodes at a time


class ImageDataset:
    """A packed dataset on disk. It keeps names and labels in memory, never images, and no file open.

    `classes` are the sorted class names, and a label is a position among them. `sha256` is the digest of
    the file that was given, the uploaded one where it was packed by `open_dataset`.
    """

    def __init__(self, pack: Path, *, entries: Sequence[PackEntry], sha256: str) -> None:
        self.pack = pack
        self.sha256 = sha256
        self.classes: tuple[str, ...] = tuple(sorted({entry.class_name for entry in entries}))
        positions = {name: label for label, name in enumerate(self.classes)}
        self._entries = {split: [entry for entry in entries if entry.split == split] for split in SPLITS}
        self._labels = {
            split: np.array([positions[entry.class_name] for entry in members], dtype=np.int64)
            for split, members in self._entries.items()
        }

    @classmethod
    def open(cls, path: Path, *, sha256: str | None = None) -> "ImageDataset":
        """The dataset of a pack; ArchiveError for any other file (`open_dataset` takes every archive).

        `sha256` is computed where it is not given: pass that of the uploaded file to have it in results.
        """
        return cls(path, entries=pack_entries(path), sha256=sha256 or file_sha256(path))

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    def n(self, split: Split) -> int:
        """How many images the split has; 0 where there is no test split."""
        return len(self._entries[split])

    def labels(self, split: Split) -> NDArray[np.int64]:
        """`(n,)`, positions in `classes`; a copy."""
        return self._labels[split].copy()

    def names(self, split: Split) -> tuple[str, ...]:
        """Paths in the pack, `<split>/<class>/<name>.png`, in the order of labels and indices."""
        return tuple(entry.path for entry in self._entries[split])

    def read(self, split: Split, index: int) -> Image.Image:
        """One image in mode L or RGB; UnreadableImage where the pack is damaged."""
        with self.pack.open("rb") as file:
            return read_packed(file, self._entries[split][index])

    def decode(
        self,
        split: Split,
        *,
        size: int,
        fit: Fit,
        interpolation: Interpolation,
        scratch: Path,
        indices: Sequence[int] | NDArray[np.int64] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.uint8]:
        """Images `(n, 3, size, size)`, values 0 to 255, as `prepare_image` makes them; row i is `indices[i]`.

        A memory map of a file in `scratch`, so it takes 3 n size^2 bytes of disk and no memory to speak of.
        A second call with equal arguments opens the same file. The map is copy-on-write: writing to it
        changes nothing on disk. IndexError where an index is outside the split; what `on_progress(done, n)`
        raises ends the call and leaves nothing behind.
        """
        members = self._entries[split]
        chosen = np.arange(len(members)) if indices is None else np.asarray(indices, dtype=np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(members)):
            raise IndexError(f"indices from {chosen.min()} to {chosen.max()}, the {split} split has {len(members)}")
        if not chosen.size:
            return np.zeros((0, 3, size, size), dtype=np.uint8)
        parameters = json.dumps([self.sha256, split, size, fit, interpolation]).encode()
        digest = hashlib.blake2b(parameters + chosen.tobytes(), digest_size=12).hexdigest()
        decoded = scratch / f"images-{digest}.npy"
        if not decoded.exists():
            scratch.mkdir(parents=True, exist_ok=True)
            entries = [members[i] for i in chosen]
            partial = decoded.with_name(f"{decoded.name}.{os.getpid()}.part")
            try:
                with partial.open("wb") as file:
                    self._write(file, entries, size=size, fit=fit, interpolation=interpolation, report=on_progress)
                partial.replace(decoded)
            finally:
                partial.unlink(missing_ok=True)
        return cast(NDArray[np.uint8], np.load(decoded, mmap_mode="c", allow_pickle=False))

    def _write(
        self,
        file: BinaryIO,
        entries: Sequence[PackEntry],
        *,
        size: int,
        fit: Fit,
        interpolation: Interpolation,
        report: Callable[[int, int], None] | None,
    ) -> None:
        """Written, not mapped: on a full disk a write raises OSError, a store into a mapping kills the process."""
        shape = (len(entries), 3, size, size)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})

        def prepared(chunk: Sequence[PackEntry]) -> list[NDArray[np.uint8]]:
            with self.pack.open("rb") as pack:
                images = (read_packed(pack, entry) for entry in chunk)
                return [prepare_image(image, size=size, fit=fit, interpolation=interpolation) for image in images]

        n_threads = min(16, os.cpu_count() or 1)
        window = _CHUNK * n_threads  # what is in memory at a time
        with ThreadPoolExecutor(n_threads) as threads:
            for start in range(0, len(entries), window):
                stop = min(start + window, len(entries))
                chunks = [entries[i : min(i + _CHUNK, stop)] for i in range(start, stop, _CHUNK)]
                for images in threads.map(prepared, chunks):
                    file.write(b"".join(image.tobytes() for image in images))
                if report is not None:
                    report(stop, len(entries))


def open_dataset(path: Path, *, scratch: Path | None = None) -> ImageDataset:
    """The dataset of a pack or of any accepted archive, which is first packed into `scratch` (and found again there).

    Without `scratch` the pack lies in a temporary folder that goes with the dataset. Decoding happens in this
    process: a service that is given strangers' files calls `pack_archive` in a process it can kill.
    ArchiveError or DatasetError where the archive is refused.
    """
    if not path.is_file():
        raise ArchiveError(f"there is no file {path}")
    if is_pack(path):
        return ImageDataset.open(path)
    sha256 = file_sha256(path)
    folder = Path(tempfile.mkdtemp(prefix="mr-dataset-")) if scratch is None else scratch
    folder.mkdir(parents=True, exist_ok=True)
    pack = folder / f"dataset-{sha256[:24]}.pack.zip"
    try:
        if not pack.exists():
            report = pack_archive(path, pack)
            report.raise_if_invalid()
        dataset = ImageDataset.open(pack, sha256=sha256)
    except BaseException:
        if scratch is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if scratch is None:
        weakref.finalize(dataset, shutil.rmtree, folder, ignore_errors=True)
    return dataset


def file_sha256(path: Path) -> str:
    """Digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
