"""Outputs of frozen backbones that jobs share: found by what they were computed from, the least used go first."""

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.blobs import BlobInfo
from service.models import FeatureSet


def find(session: Session, tenant: str, key: str) -> str | None:
    """The blob kept under the key, noted as used now; None where there is none."""
    return session.scalars(
        update(FeatureSet)
        .where(FeatureSet.tenant == tenant, FeatureSet.key == key)
        .values(last_used_at=func.clock_timestamp())
        .returning(FeatureSet.sha256)
    ).one_or_none()


def keep(session: Session, tenant: str, key: str, blob: BlobInfo, *, dataset_sha256: str) -> None:
    """Note a blob under a key; two jobs that computed the same leave one row."""
    row = insert(FeatureSet).values(
        tenant=tenant, key=key, dataset_sha256=dataset_sha256, sha256=blob.sha256, size_bytes=blob.size_bytes
    )
    session.execute(row.on_conflict_do_nothing())


def forget_dataset(session: Session, tenant: str, dataset_sha256: str) -> None:
    """Forget what was computed from a dataset that its tenant deletes; the blobs go as orphans."""
    session.execute(delete(FeatureSet).filter_by(tenant=tenant, dataset_sha256=dataset_sha256))


def evict(session: Session, *, max_bytes: int) -> list[str]:
    """Forget the least recently used sets until the rest fits, whoever they belong to; the blobs they were."""
    running = func.sum(FeatureSet.size_bytes).over(order_by=(FeatureSet.last_used_at.desc(), FeatureSet.key))
    ranked = select(FeatureSet.tenant, FeatureSet.key, running.label("total")).subquery()
    over = select(ranked.c.tenant, ranked.c.key).where(ranked.c.total > max_bytes)
    gone = delete(FeatureSet).where(tuple_(FeatureSet.tenant, FeatureSet.key).in_(over)).returning(FeatureSet.sha256)
    return list(session.scalars(gone))
