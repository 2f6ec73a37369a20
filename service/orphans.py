"""Blobs that nothing refers to: left by crashes, deleted jobs and replaced checkpoints."""

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from service.blobs import Blobs
from service.models import (
    Blob,
    Dataset,
    FeatureSet,
    RegisteredBackbone,
    StoredAdapter,
    StoredArtifact,
    StoredCheckpoint,
    UploadPart,
)
from service.session import Database

_REFERENCES = (
    Dataset.sha256,
    Dataset.pack_sha256,
    RegisteredBackbone.sha256,
    FeatureSet.sha256,
    StoredCheckpoint.sha256,
    StoredArtifact.sha256,
    StoredAdapter.sha256,
    UploadPart.sha256,
)


def delete_orphans(database: Database, blobs: Blobs, *, older_than_s: float) -> int:
    """Delete blobs without references that were last wanted so long ago; how many.

    The age covers the time between a blob's commit and that of the row that refers to it.
    """
    removed = 0
    while True:
        with database.session() as session:
            sha256 = session.scalars(_orphans(older_than_s).limit(1).with_for_update(skip_locked=True)).one_or_none()
            if sha256 is None:
                return removed
            # The row stays locked until the bytes are gone, so that the same content cannot return in between.
            blobs.delete(session, sha256)
            removed += 1


def delete_orphan(database: Database, blobs: Blobs, sha256: str) -> bool:
    """Delete one blob unless something refers to it, as after an upload that is refused; whether it is gone."""
    with database.session() as session:
        mine = _orphans(older_than_s=0).where(Blob.sha256 == sha256).with_for_update(skip_locked=True)
        is_orphan = session.scalars(mine).one_or_none() is not None
        if is_orphan:
            blobs.delete(session, sha256)
        return is_orphan


def _orphans(older_than_s: float) -> Select[str]:
    age = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, older_than_s)
    return select(Blob.sha256).where(Blob.created_at < age, ~or_(*(_is_referred_to(column) for column in _REFERENCES)))


def _is_referred_to(reference: InstrumentedAttribute[str] | InstrumentedAttribute[str | None]) -> ColumnElement[bool]:
    return select(1).where(reference == Blob.sha256).correlate(Blob).exists()
