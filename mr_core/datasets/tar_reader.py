"""Tar archives, plain or gzipped, read forward as a stream whose inflated bytes are counted."""

import gzip
import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.members import ArchiveReader, Member, NameGuard
from mr_core.errors import ArchiveBomb, ArchiveError, ArchiveTooLarge, UnreadableImage, UnsafeArchive

_PIECE_BYTES = 2**16
_HEADER_BYTES = 2**20  # tarfile reads an extended header whole, whatever size it claims
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError)


class TarReader(ArchiveReader):
    """Regular files and folders of a tar; ArchiveError where it is damaged, unsafe or too large."""

    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        self._path = path
        self._limits = limits

    def members(self) -> Iterator[Member]:
        guard = NameGuard(self._limits)
        for n_entries, (info, _) in enumerate(self._entries(), start=1):
            if n_entries > self._limits.entries:
                raise ArchiveTooLarge(f"the archive has more than {self._limits.entries} entries")
            _check_entry(info)
            parts = guard.parts(info.name, is_folder=info.isdir())
            if parts:
                yield Member(info.name, parts, info.size, info.isdir())

    def contents(self, names: Collection[str]) -> Iterator[tuple[str, bytes | UnreadableImage]]:
        wanted = set(names)
        for info, stream in self._entries():
            if info.isreg() and info.name in wanted:
                yield info.name, stream.read_exactly(info.size)

    def _entries(self) -> Iterator[tuple[tarfile.TarInfo, "_ForwardStream"]]:
        """Each header with the stream standing at its data."""
        try:
            with self._stream() as stream, tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
                    yield info, stream
                stream.check_end()
        except _DAMAGE as error:
            raise ArchiveError(f"the tar archive is damaged or truncated: {error}") from error

    @contextmanager
    def _stream(self) -> Iterator["_ForwardStream"]:
        with self._path.open("rb") as file:
            is_gzipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not is_gzipped:
                yield _ForwardStream(file, self._limits, n_stored=None)
                return
            with gzip.GzipFile(fileobj=file) as inflated:
                yield _ForwardStream(cast(IO[bytes], inflated), self._limits, n_stored=self._path.stat().st_size)


class _ForwardStream:
    """What tarfile needs of a file, without going back: only the byte just read can be read again.

    GzipFile would begin anew for every step back that tarfile takes after a file of whole blocks.
    """

    def __init__(self, source: IO[bytes], limits: ArchiveLimits, *, n_stored: int | None) -> None:
        self._source = source
        self._limits = limits
        self._n_stored = n_stored
        self._position = 0
        self._last = b""  # the byte that can be read again
        self._is_replayed = False
        self._answer = b""  # what the latest read gave

    def read(self, n_bytes: int) -> bytes:
        if n_bytes > _HEADER_BYTES:
            raise ArchiveError(f"the tar archive has a header of {n_bytes} bytes, the limit is {_HEADER_BYTES}")
        replayed = b""
        if self._is_replayed and n_bytes > 0:
            replayed, self._is_replayed = self._last, False
            n_bytes -= 1
        piece = self._source.read(n_bytes) if n_bytes else b""
        self._position += len(replayed) + len(piece)
        self._check_size()
        self._last = piece[-1:] or self._last
        self._answer = replayed + piece
        return self._answer

    def read_exactly(self, n_bytes: int) -> bytes:
        pieces = []
        while n_bytes > 0:
            piece = self.read(min(_PIECE_BYTES, n_bytes))
            if not piece:
                raise EOFError("it ends within a file")
            pieces.append(piece)
            n_bytes -= len(piece)
        return b"".join(pieces)

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position == self._position - 1 and self._last and not self._is_replayed:
            self._is_replayed = True
            self._position = position
        elif position < self._position:
            raise tarfile.ReadError("a header points backwards")
        while self._position < position:
            if not self.read(min(_PIECE_BYTES, position - self._position)):
                break  # tarfile reads on and finds the end
        return self._position

    def check_end(self) -> None:
        """tarfile stops in silence at a header that is none; an archive ends with zeros or with its file."""
        if self._answer.strip(b"\0"):
            raise tarfile.ReadError("it ends within a header, or has something else in place of one")

    def _check_size(self) -> None:
        n_bytes, limits = self._position, self._limits
        if n_bytes > limits.unpacked_bytes:
            raise ArchiveTooLarge(f"unpacked the archive has over {limits.unpacked_bytes} bytes, which is the limit")
        if self._n_stored is None or n_bytes <= limits.inflation_floor_bytes:
            return
        if n_bytes > limits.inflation_ratio * self._n_stored:
            raise ArchiveBomb(
                f"{self._n_stored} bytes inflate to over {n_bytes}, the limit is {limits.inflation_ratio} to 1"
            )


def _check_entry(info: tarfile.TarInfo) -> None:
    if info.issym() or info.islnk():
        raise UnsafeArchive(f"{info.name!r} is a link to {info.linkname!r}; expected files and folders alone")
    if info.issparse() or not (info.isreg() or info.isdir()):
        raise UnsafeArchive(f"{info.name!r} is a device, a pipe or a sparse file; expected files and folders alone")
    if info.size < 0:
        raise UnsafeArchive(f"{info.name!r} declares {info.size} bytes")
