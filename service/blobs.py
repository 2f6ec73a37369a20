"""Immutable bytes under their SHA-256: small ones in PostgreSQL, large ones in a blob store.

Bytes come first and the rows that refer to them after, so a crash leaves at worst an orphan for the sweeper.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, cast

import fsspec
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.errors import NotFound, PayloadTooLarge, StorageUnavailable
from service.ids import new_id
from service.models import Blob, BlobChunk
from service.session import Database

CHUNK_BYTES = 1024 * 1024
LARGEST_IN_DATABASE_BYTES = 64 * CHUNK_BYTES

Place = Literal["database", "store"]


@dataclass(frozen=True)
class BlobInfo:
    """What names a blob, and how long it is."""

    sha256: str
    size_bytes: int


class Blobs:
    """All blobs, wherever they are; `store_url` is any fsspec URL."""

    def __init__(self, store_url: str, database: Database) -> None:
        self._files, root = fsspec.core.url_to_fs(store_url)
        self._root = str(root).rstrip("/")
        self._is_local = "file" in _protocols(self._files)
        self._database = database
        if self._is_local:
            Path(self._root).mkdir(parents=True, exist_ok=True, mode=0o700)

    def put_file(self, path: Path, place: Place = "store") -> BlobInfo:
        """Keep a copy of a file."""
        if place == "database":
            size_bytes = path.stat().st_size
            _check_fits_database(size_bytes)
            with self._database.session() as session:
                return BlobInfo(self.put_bytes(session, path.read_bytes()), size_bytes)
        with path.open("rb") as source, self.writer() as writer:
            shutil.copyfileobj(source, cast("IO[bytes]", writer), CHUNK_BYTES)
            return writer.commit()

    def put_bytes(self, session: Session, content: bytes) -> str:
        """Keep bytes in the database, as part of the caller's transaction; their SHA-256."""
        _check_fits_database(len(content))
        sha256 = hashlib.sha256(content).hexdigest()
        if _claim_row(session, sha256, len(content), "database"):
            session.execute(
                insert(BlobChunk).on_conflict_do_nothing(),
                [
                    {"sha256": sha256, "n": n, "content": content[start : start + CHUNK_BYTES]}
                    for n, start in enumerate(range(0, len(content), CHUNK_BYTES))
                ]
                or [{"sha256": sha256, "n": 0, "content": b""}],
            )
        return sha256

    @contextmanager
    def writer(self) -> Iterator["BlobWriter"]:
        """Takes bytes as they come, in constant memory; kept only if `commit` is called before the end."""
        writer = BlobWriter(self)
        try:
            yield writer
        finally:
            writer.abort()

    def read(self, session: Session, sha256: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes `start` to `stop` (excluded); NotFound where there is no such blob."""
        return b"".join(self.chunks(session, sha256, start, stop))

    def chunks(self, session: Session, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The same, in pieces of at most a MiB."""
        blob = self.info(session, sha256)
        stop = min(blob.size_bytes, stop if stop is not None else blob.size_bytes)
        if blob.place == "database":
            for n in range(start // CHUNK_BYTES, -(-stop // CHUNK_BYTES)):
                offset = n * CHUNK_BYTES
                piece = slice(max(start - offset, 0), min(stop - offset, CHUNK_BYTES))
                yield session.scalars(select(BlobChunk.content).filter_by(sha256=sha256, n=n)).one()[piece]
            return
        with self._open_stored(sha256) as source:
            source.seek(start)
            while start < stop and (chunk := source.read(min(CHUNK_BYTES, stop - start))):
                start += len(chunk)
                yield chunk

    def info(self, session: Session, sha256: str) -> Blob:
        """Size and place of a blob."""
        blob = session.get(Blob, sha256)
        if blob is None:
            raise NotFound(f"there is no blob {sha256}")
        return blob

    def hold(self, session: Session, sha256: str) -> None:
        """Keep a blob until this transaction's end, by which a row refers to it; StorageUnavailable if it is gone.

        For bytes that another job may have left as well, and given up a moment ago.
        """
        if session.get(Blob, sha256, with_for_update={"read": True}, populate_existing=True) is None:
            raise StorageUnavailable(f"the blob {sha256} was deleted before anything referred to it")

    @contextmanager
    def open(self, sha256: str) -> Iterator[BinaryIO]:
        """The blob as a file to read; seekable."""
        with ExitStack() as stack:
            with self._database.session() as session:
                in_database = self.info(session, sha256).place == "database"
                if in_database:
                    copy = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=8 * CHUNK_BYTES))
                    for chunk in self.chunks(session, sha256):
                        copy.write(chunk)
                    copy.seek(0)
            yield cast("BinaryIO", copy) if in_database else stack.enter_context(self._open_stored(sha256))

    @contextmanager
    def local_path(self, sha256: str) -> Iterator[Path]:
        """The blob as a local file, to be read only; the stored file itself where the store is a folder."""
        stored = Path(self._path(sha256))
        if self._is_local and stored.exists():
            yield stored
            return
        with tempfile.TemporaryDirectory(prefix="mr-blob-") as folder:
            copy = Path(folder) / sha256
            with self.open(sha256) as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
            yield copy

    def delete(self, session: Session, sha256: str) -> None:
        """Forget a blob that nothing refers to any more; no error where there is none."""
        place = session.scalar(delete(Blob).where(Blob.sha256 == sha256).returning(Blob.place))
        if place == "store":
            self._remove(self._path(sha256))

    def remove_strays(self, older_than_s: float) -> int:
        """Delete stored files that no row knows: uploads and crashes that never reached their commit."""
        removed, latest = 0, datetime.now(UTC) - timedelta(seconds=older_than_s)
        for path in sorted(self._files.find(self._root)):
            if self._files.modified(path) > latest:
                continue
            with self._database.session() as session:
                is_known = session.get(Blob, path.rsplit("/", 1)[-1]) is not None
            if not is_known:
                self._remove(path)
                removed += 1
        return removed

    def check(self) -> None:
        """StorageUnavailable where the store cannot be written."""
        with self.writer() as writer:
            writer.write(b"\0")

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    @contextmanager
    def _open_stored(self, sha256: str) -> Iterator[BinaryIO]:
        try:
            source = self._files.open(self._path(sha256), "rb")
        except OSError as error:
            raise StorageUnavailable(f"the blob store does not give {sha256}: {error}") from error
        with source:
            yield source

    def _remove(self, path: str) -> None:
        try:
            self._files.rm_file(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageUnavailable(f"the blob store does not delete {path}: {error}") from error


class BlobWriter:
    """An upload under way: a temporary file of the store, hashed as it grows. Made by `Blobs.writer`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._digest = hashlib.sha256()
        self._path = f"{blobs._root}/incoming/{new_id('wk')}"
        self.size_bytes = 0
        try:
            blobs._files.makedirs(f"{blobs._root}/incoming", exist_ok=True)
            self._target: Any = blobs._files.open(self._path, "wb")
        except OSError as error:
            raise StorageUnavailable(f"the blob store takes no files: {error}") from error

    def write(self, content: bytes) -> int:
        """Append bytes."""
        try:
            self._target.write(content)
        except OSError as error:
            raise StorageUnavailable(f"the blob store takes no more bytes: {error}") from error
        self._digest.update(content)
        self.size_bytes += len(content)
        return len(content)

    @property
    def sha256(self) -> str:
        """Of the bytes so far."""
        return self._digest.hexdigest()

    def commit(self) -> BlobInfo:
        """Make the bytes a blob, durable and under its final name."""
        blobs, sha256 = self._blobs, self._digest.hexdigest()
        final = blobs._path(sha256)
        try:
            if blobs._is_local:
                self._target.flush()
                os.fsync(self._target.fileno())
            self._target.close()
            # The row's new date keeps the sweeper away from the file that comes next.
            with blobs._database.session() as session:
                in_store = (
                    _claim_row(session, sha256, self.size_bytes, "store")
                    or blobs.info(session, sha256).place == "store"
                )
            if in_store:
                blobs._files.makedirs(final.rsplit("/", 1)[0], exist_ok=True)
                if blobs._is_local:
                    Path(self._path).replace(final)
                    _sync_folder(Path(final).parent)
                else:
                    blobs._files.mv(self._path, final)
            return BlobInfo(sha256, self.size_bytes)
        except OSError as error:
            raise StorageUnavailable(f"the blob store does not keep {sha256}: {error}") from error

    @contextmanager
    def local_path(self) -> Iterator[Path]:
        """What was written, as a local file to look at before `commit`; nothing can be written afterwards."""
        blobs = self._blobs
        if blobs._is_local:
            self._target.flush()
            yield Path(self._path)
            return
        try:
            self._target.close()
            with tempfile.TemporaryDirectory(prefix="mr-blob-") as folder:
                copy = Path(folder) / "upload"
                blobs._files.get_file(self._path, str(copy))
                yield copy
        except OSError as error:
            raise StorageUnavailable(f"the blob store does not give the upload back: {error}") from error

    def abort(self) -> None:
        """Drop what has not been committed."""
        with suppress(OSError):  # a full disk fails again here, and has been told already
            self._target.close()
        self._blobs._remove(self._path)


def _claim_row(session: Session, sha256: str, size_bytes: int, place: Place) -> bool:
    """Note the blob, or that it is wanted again; whether its bytes belong to this place and are to be written."""
    row = insert(Blob).values(sha256=sha256, size_bytes=size_bytes, place=place)
    fresh = row.on_conflict_do_update(index_elements=[Blob.sha256], set_={"created_at": func.clock_timestamp()})
    return session.scalars(fresh.returning(Blob.place)).one() == place


def _check_fits_database(size_bytes: int) -> None:
    if size_bytes > LARGEST_IN_DATABASE_BYTES:
        raise PayloadTooLarge(
            f"{size_bytes} bytes are too many for the database, which takes up to {LARGEST_IN_DATABASE_BYTES}"
        )


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
