"""Resumable uploads as rows: what the routes cannot time."""

import pytest
from sqlalchemy import text

from service import uploads
from service.blobs import BlobInfo, Blobs
from service.errors import NotFound, StorageUnavailable
from service.session import Database
from service.settings import Settings
from tests.service.acting import make_sweeper


def begin(database: Database, settings: Settings, *, size_bytes: int = 10, part_bytes: int = 4) -> str:
    with database.session() as session:
        return uploads.create(
            session, settings, tenant="a", purpose="dataset", name="d", modality="image", size_bytes=size_bytes,
            part_bytes=part_bytes,
        ).id  # fmt: skip


def keep(blobs: Blobs, content: bytes) -> BlobInfo:
    with blobs.writer() as writer:
        writer.write(content)
        return writer.commit()


def expiry(database: Database, upload: str) -> object:
    with database.session() as session:
        return uploads.get(session, "a", upload).expires_at


@pytest.mark.parametrize(("size_bytes", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (1, [1])])
def test_every_part_but_the_last_is_whole(
    database: Database, settings: Settings, size_bytes: int, sizes: list[int]
) -> None:
    upload_id = begin(database, settings, size_bytes=size_bytes)
    with database.session() as session:
        upload = uploads.get(session, "a", upload_id)
    assert [uploads.part_size(upload, n) for n in range(1, uploads.part_count(upload) + 1)] == sizes
    for n in (0, len(sizes) + 1):
        with pytest.raises(NotFound, match=f"its parts are 1 to {len(sizes)}"):
            uploads.part_size(upload, n)


def test_a_new_part_moves_the_expiry_on_and_the_same_again_does_not(
    database: Database, settings: Settings, blobs: Blobs
) -> None:
    upload, part = begin(database, settings), keep(blobs, b"part")
    expiries = [expiry(database, upload)]
    for _ in range(2):
        with database.session() as session:
            uploads.add_part(session, "a", upload, 1, part, expiry_s=settings.upload_expiry_s)
        expiries.append(expiry(database, upload))
    assert expiries[0] < expiries[1] == expiries[2]  # type: ignore[operator]


def test_a_part_whose_bytes_went_meanwhile_is_asked_for_again(
    database: Database, settings: Settings, blobs: Blobs
) -> None:
    upload, part = begin(database, settings), keep(blobs, b"part")
    uploads.drop(database, blobs, [part.sha256])
    with pytest.raises(StorageUnavailable, match="part 1 were deleted meanwhile"), database.session() as session:
        uploads.add_part(session, "a", upload, 1, part, expiry_s=60)


def test_bytes_that_something_else_has_too_stay(database: Database, settings: Settings, blobs: Blobs) -> None:
    first, second, part = begin(database, settings), begin(database, settings), keep(blobs, b"part")
    for upload in (first, second):
        with database.session() as session:
            uploads.add_part(session, "a", upload, 1, part, expiry_s=60)
    with database.session() as session:
        held = uploads.delete(session, "a", first)
    uploads.drop(database, blobs, held)
    with blobs.open(part.sha256) as source:
        assert source.read() == b"part"


def test_the_sweeper_deletes_expired_uploads_alone(database: Database, settings: Settings, blobs: Blobs) -> None:
    expired, alive = begin(database, settings), begin(database, settings)
    parts = {expired: keep(blobs, b"part"), alive: keep(blobs, b"trap")}
    for upload, part in parts.items():
        with database.session() as session:
            uploads.add_part(session, "a", upload, 1, part, expiry_s=60)
    with database.session() as session:
        session.execute(text("UPDATE uploads SET expires_at = now() WHERE id = :id"), {"id": expired})
    make_sweeper(settings, database).collect_garbage()
    with database.session() as session:
        assert session.execute(text("SELECT id FROM uploads")).scalars().all() == [alive]
        assert session.execute(text("SELECT sha256 FROM blobs")).scalars().all() == [parts[alive].sha256]
