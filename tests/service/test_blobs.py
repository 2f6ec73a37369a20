"""Blobs, in the database and in two kinds of store: a local folder, and one that is not a folder (as S3 is not)."""

import hashlib
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from service.blobs import CHUNK_BYTES, LARGEST_IN_DATABASE_BYTES, BlobInfo, Blobs
from service.errors import NotFound, PayloadTooLarge, StorageUnavailable
from service.session import Database


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Iterator[Blobs]:
    if request.param == "folder":
        yield Blobs(f"file://{tmp_path / 'blobs'}", database)
        return
    root = f"/{uuid4().hex}"
    yield Blobs(f"memory:/{root}", database)
    files = fsspec.filesystem("memory")
    if files.exists(root):
        files.rm(root, recursive=True)


def keep(blobs: Blobs, content: bytes) -> BlobInfo:
    with blobs.writer() as writer:
        for start in range(0, len(content), 1000):
            writer.write(content[start : start + 1000])
        return writer.commit()


def stored_files(blobs: Blobs) -> list[str]:
    return sorted(path.rsplit("/", 1)[-1] for path in blobs._files.find(blobs._root))


CONTENT = bytes(range(256)) * 20


def test_upload_is_named_by_its_digest(store: Blobs, database: Database) -> None:
    info = keep(store, CONTENT)
    assert info == BlobInfo(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert stored_files(store) == [info.sha256]
    with store.open(info.sha256) as source:
        source.seek(100)
        assert source.read(3) == CONTENT[100:103]
    with store.local_path(info.sha256) as path:
        assert path.read_bytes() == CONTENT
    with database.session() as session:
        assert store.info(session, info.sha256).place == "store"


def test_upload_that_is_not_committed_leaves_nothing(store: Blobs) -> None:
    with store.writer() as writer:
        writer.write(CONTENT)
    with pytest.raises(TypeError), store.writer() as writer:
        writer.write("not bytes")  # type: ignore[arg-type]
    assert stored_files(store) == []


def test_upload_can_be_looked_at_before_it_is_kept(store: Blobs) -> None:
    with store.writer() as writer:
        writer.write(CONTENT)
        with writer.local_path() as path:
            assert path.read_bytes() == CONTENT
        info = writer.commit()
    with store.open(info.sha256) as source:
        assert source.read() == CONTENT


def test_same_content_is_kept_once(store: Blobs, database: Database) -> None:
    assert keep(store, CONTENT) == keep(store, CONTENT)
    assert len(stored_files(store)) == 1
    with database.session() as session:
        sha256 = store.put_bytes(session, b"in the database")
    assert keep(store, b"in the database").sha256 == sha256
    assert len(stored_files(store)) == 1, "what the database holds is not stored a second time"
    with database.session() as session:
        assert store.put_bytes(session, CONTENT) == hashlib.sha256(CONTENT).hexdigest()
        assert store.info(session, sha256).place == "database"
        assert store.read(session, sha256) == b"in the database"


@pytest.mark.parametrize("place", ["store", "database"])
def test_file_is_copied(store: Blobs, database: Database, tmp_path: Path, place: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    info = store.put_file(path, place)
    path.unlink()
    with database.session() as session:
        assert store.info(session, info.sha256).place == place
        assert store.read(session, info.sha256) == CONTENT


@pytest.mark.parametrize("place", ["store", "database"])
@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 5])
def test_ranges_are_slices(store: Blobs, database: Database, place: str, size: int) -> None:
    content = (b"0123456789abcdef_" * (size // 17 + 1))[:size]
    with database.session() as session:
        sha256 = store.put_bytes(session, content) if place == "database" else keep(store, content).sha256
    edges = [0, 1, size // 2, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, size - 1, size, size + 10]
    with database.session() as session:
        assert store.read(session, sha256) == content
        for start in (edge for edge in edges if edge >= 0):
            for stop in (edge for edge in edges if edge >= start):
                assert store.read(session, sha256, start, stop) == content[start:stop]
    with store.open(sha256) as source:
        assert source.read() == content


def test_database_refuses_more_than_64_mib_and_says_how_many(store: Blobs, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(LARGEST_IN_DATABASE_BYTES + 1)
    with pytest.raises(PayloadTooLarge, match=r"67108865 bytes .* 67108864"):
        store.put_file(path, "database")
    with database.session() as session, pytest.raises(PayloadTooLarge, match="67108865"):
        store.put_bytes(session, bytes(LARGEST_IN_DATABASE_BYTES + 1))


def test_rolled_back_bytes_are_gone(blobs: Blobs, database: Database) -> None:
    with suppress(ZeroDivisionError), database.session() as session:
        sha256 = blobs.put_bytes(session, CONTENT)
        raise ZeroDivisionError
    with database.session() as session, pytest.raises(NotFound):
        blobs.read(session, sha256)


def test_unknown_blob_is_not_found(store: Blobs, database: Database) -> None:
    with pytest.raises(NotFound), store.open("0" * 64):
        pass
    with pytest.raises(NotFound), store.local_path("0" * 64):
        pass


def test_deleted_blob_is_gone(store: Blobs, database: Database) -> None:
    sha256 = keep(store, CONTENT).sha256
    for _ in range(2):
        with database.session() as session:
            store.delete(session, sha256)
    assert stored_files(store) == []


def test_upload_takes_constant_memory(blobs: Blobs) -> None:
    piece = bytes(CHUNK_BYTES)
    tracemalloc.start()
    try:
        with blobs.writer() as writer:
            for _ in range(48):
                writer.write(piece)
            info = writer.commit()
        with blobs.open(info.sha256) as source:
            while source.read(CHUNK_BYTES):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert info.size_bytes == 48 * CHUNK_BYTES
    assert peak < 4 * CHUNK_BYTES


def test_local_file_is_not_copied(blobs: Blobs) -> None:
    sha256 = keep(blobs, CONTENT).sha256
    with blobs.local_path(sha256) as first, blobs.local_path(sha256) as second:
        assert first == second
    assert first.exists()


def test_strays_are_removed_and_blobs_are_not(store: Blobs) -> None:
    sha256 = keep(store, CONTENT).sha256
    for name in ("incoming/wk_lost", "ab/" + "ab" * 32):
        store._files.makedirs(f"{store._root}/{name.split('/')[0]}", exist_ok=True)
        store._files.pipe_file(f"{store._root}/{name}", b"stray")
    assert store.remove_strays(older_than_s=3600) == 0
    assert store.remove_strays(older_than_s=-1) == 2
    assert stored_files(store) == [sha256]


def test_full_disk_is_a_storage_error_and_leaves_nothing(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.blobs.os.fsync", full)
    with pytest.raises(StorageUnavailable, match="No space left"):
        keep(blobs, CONTENT)
    assert stored_files(blobs) == []


def test_missing_file_is_a_storage_error(blobs: Blobs) -> None:
    sha256 = keep(blobs, CONTENT).sha256
    blobs._files.rm_file(blobs._path(sha256))
    with pytest.raises(StorageUnavailable), blobs.open(sha256):
        pass
