"""Zip archives whose directory is checked before anything is inflated, and not believed while inflating."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import IO

from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.members import ArchiveReader, Member, NameGuard
from mr_core.errors import ArchiveBomb, ArchiveError, ArchiveTooLarge, UnreadableImage, UnsafeArchive

_PIECE_BYTES = 2**20
_DIRECTORY_BYTES = 128 * 2**20
_END = struct.Struct("<4s4xHHIIH")  # signature, entries on this disk, entries, directory size, offset, comment
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, ValueError)


class ZipReader(ArchiveReader):
    """Stored and deflated entries of a zip; ArchiveError where the directory is damaged, unsafe or too large."""

    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        self._path = path
        self._limits = limits
        self._infos = _directory(path, limits)

    def members(self) -> Iterator[Member]:
        guard = NameGuard(self._limits)
        for name, info in self._infos.items():
            parts = guard.parts(name, is_folder=info.is_dir())
            if parts:
                yield Member(name, parts, info.file_size, info.is_dir())

    def contents(self, names: Collection[str]) -> Iterator[tuple[str, bytes | UnreadableImage]]:
        with zipfile.ZipFile(self._path) as archive:
            for name in sorted(names, key=lambda name: self._infos[name].header_offset):
                try:
                    with self._open(archive, name) as stream:
                        yield name, b"".join(stream)
                except _DAMAGE as error:
                    yield name, UnreadableImage(f"its entry in the zip is damaged: {error}")

    @contextmanager
    def stream(self, name: str) -> Iterator[Iterator[bytes]]:
        """Pieces of one file of any size; ArchiveError where it is damaged."""
        try:
            with zipfile.ZipFile(self._path) as archive, self._open(archive, name) as pieces:
                yield pieces
        except _DAMAGE as error:
            raise ArchiveError(f"{name!r} is damaged: {error}") from error

    @contextmanager
    def _open(self, archive: zipfile.ZipFile, name: str) -> Iterator[Iterator[bytes]]:
        declared = self._infos[name].file_size
        info = copy(self._infos[name])
        info.file_size = declared + 2 * _PIECE_BYTES  # zipfile stops at this size: an entry must be able to go on
        with archive.open(info) as stream:
            yield _honest(stream, name, declared)


def _honest(stream: IO[bytes], name: str, declared: int) -> Iterator[bytes]:
    """The pieces of an entry; ArchiveBomb as soon as it inflates to more than its header declares."""
    n_bytes = 0
    while piece := stream.read(_PIECE_BYTES):
        n_bytes += len(piece)
        if n_bytes > declared:
            raise ArchiveBomb(f"{name!r} declares {declared} bytes and inflates to more")
        yield piece
    if n_bytes < declared:
        raise zipfile.BadZipFile(f"{n_bytes} bytes, its header declares {declared}")


def _directory(path: Path, limits: ArchiveLimits) -> dict[str, zipfile.ZipInfo]:
    """Entries by name, in the directory's order."""
    _check_directory_size(path, limits)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except _DAMAGE as error:
        raise ArchiveError(f"the zip is damaged or truncated: {error}") from error
    by_name: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        _check_entry(info, limits)
        name = _name(info)
        if by_name.setdefault(name, info) is not info:
            raise UnsafeArchive(f"the entry {name!r} comes twice")
    _check_total(sum(info.file_size for info in infos), path.stat().st_size, limits)
    _check_places(infos)
    return by_name


def _check_directory_size(path: Path, limits: ArchiveLimits) -> None:
    """Before zipfile reads the whole directory into memory, an object for each entry."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 2**16 - _END.size))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) < at + _END.size:
            raise ArchiveError("the zip is truncated: it has no directory at its end")
        n_directory = _END.unpack_from(tail, at)[3]
        zip64 = tail.rfind(b"PK\x06\x06", 0, at)
        if n_directory == 0xFFFFFFFF and 0 <= zip64 <= at - 56:
            n_directory = struct.unpack_from("<Q", tail, zip64 + 40)[0]
        if n_directory > _DIRECTORY_BYTES:
            raise ArchiveTooLarge(f"the zip's directory has {n_directory} bytes, the limit is {_DIRECTORY_BYTES}")
        file.seek(max(0, size - len(tail) + at - n_directory - 100))  # 76 bytes of zip64 records may lie between
        n_entries = file.read(n_directory + 100).count(b"PK\x01\x02")
    if n_entries > limits.entries:
        raise ArchiveTooLarge(f"the archive has {n_entries} entries, the limit is {limits.entries}")


def _check_entry(info: zipfile.ZipInfo, limits: ArchiveLimits) -> None:
    name = info.orig_filename
    if "\0" in name:
        raise UnsafeArchive(f"the name {name!r} has a control character")
    if info.flag_bits & 0x2041:
        raise UnsafeArchive(f"{name!r} is encrypted; expected an archive without a password")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeArchive(f"{name!r} is a link or a device; expected files and folders alone")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"{name!r} is compressed by method {info.compress_type}; expected stored or deflated")
    if info.file_size > limits.inflation_floor_bytes and info.file_size > limits.inflation_ratio * info.compress_size:
        raise ArchiveBomb(
            f"{name!r} inflates from {info.compress_size} to {info.file_size} bytes, "
            f"the limit is {limits.inflation_ratio} to 1"
        )


def _check_total(unpacked: int, stored: int, limits: ArchiveLimits) -> None:
    if unpacked > limits.inflation_floor_bytes and unpacked > limits.inflation_ratio * stored:
        raise ArchiveBomb(
            f"{stored} bytes inflate to {unpacked}, the limit is {limits.inflation_ratio} to 1 for the whole archive"
        )
    if unpacked > limits.unpacked_bytes:
        raise ArchiveTooLarge(f"unpacked the archive has {unpacked} bytes, the limit is {limits.unpacked_bytes}")


def _check_places(infos: list[zipfile.ZipInfo]) -> None:
    """Entries that share their bytes, or follow bytes of something else, are not what they seem."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ArchiveBomb(f"{info.filename!r} shares its bytes with another entry")
        if end == 0 and info.header_offset > 0:
            raise UnsafeArchive(f"{info.header_offset} bytes of something else come before the zip's first entry")
        end = info.header_offset + 30 + len(info.orig_filename) + info.compress_size


def _name(info: zipfile.ZipInfo) -> str:
    """The entry's name; macOS writes UTF-8 without the flag that says so, which zipfile reads as cp437."""
    if info.flag_bits & 0x800 or info.orig_filename.isascii():
        return info.orig_filename
    try:
        return info.orig_filename.encode("cp437").decode()
    except UnicodeError:
        return info.orig_filename
