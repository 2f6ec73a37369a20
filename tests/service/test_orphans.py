"""Blobs go when nothing refers to them, and not before."""

from sqlalchemy import text

from service import adapters
from service.blobs import Blobs
from service.models import Base, Dataset
from service.orphans import _REFERENCES, delete_orphans
from service.session import Database


def keep(blobs: Blobs, content: bytes) -> str:
    with blobs.writer() as writer:
        writer.write(content)
        return writer.commit().sha256


def age(database: Database, seconds: int) -> None:
    with database.session() as session:
        session.execute(text("UPDATE blobs SET created_at = created_at - make_interval(secs => :s)"), {"s": seconds})


def test_old_blobs_without_references_are_deleted(database: Database, blobs: Blobs) -> None:
    used, unused = keep(blobs, b"used"), keep(blobs, b"unused")
    with database.session() as session:
        in_database = blobs.put_bytes(session, b"an adapter")
        blobs.put_bytes(session, b"forgotten")
        adapters.create(session, tenant="a", job_id=None, sha256=in_database, size_bytes=10, config={})
        session.add(
            Dataset(
                id="ds_1", tenant="a", name="d", modality="image", status="ready", sha256=used, size_bytes=4,
                classes=[], splits={},
            )
        )  # fmt: skip
    assert delete_orphans(database, blobs, older_than_s=3600) == 0
    age(database, 7200)
    assert delete_orphans(database, blobs, older_than_s=3600) == 2
    with database.session() as session:
        assert session.execute(text("SELECT sha256 FROM blobs ORDER BY 1")).scalars().all() == sorted(
            [used, in_database]
        )
    assert not (blobs._files.exists(blobs._path(unused)))
    with blobs.open(used) as source:
        assert source.read() == b"used"


def test_blob_that_is_wanted_again_is_young_again(database: Database, blobs: Blobs) -> None:
    sha256 = keep(blobs, b"content")
    age(database, 7200)
    assert keep(blobs, b"content") == sha256
    assert delete_orphans(database, blobs, older_than_s=3600) == 0
    with blobs.open(sha256) as source:
        assert source.read() == b"content"


def test_every_column_that_names_a_blob_is_a_reference() -> None:
    named = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if column.name.endswith("sha256") and table.name not in ("blobs", "blob_chunks")
    }
    assert {f"{column.class_.__tablename__}.{column.key}" for column in _REFERENCES} == named - {
        "api_keys.secret_sha256",
        "feature_sets.dataset_sha256",  # what they were computed from, which may be gone
    }
