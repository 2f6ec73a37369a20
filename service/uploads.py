"""Resumable uploads: parts come in any order, each a blob, and become one file when all are there.

An upload whose time has run out is gone for its tenant at once, and for good with the sweeper's next collection.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, DateTime, cast, func, select
from sqlalchemy import delete as sql_delete
from sqlalchemy.orm import Session

from service.blobs import BlobInfo, Blobs
from service.errors import NotFound, PartConflict, QuotaExceeded, StorageUnavailable, UploadCompleted, UploadIncomplete
from service.ids import new_id
from service.models import Blob, Upload, UploadPart
from service.orphans import delete_orphan
from service.pages import page
from service.quotas import lock_quota, require_room
from service.session import Database
from service.settings import Settings

_NAMED_PARTS: Final = 20
_BATCH: Final = 100


def create(
    session: Session,
    settings: Settings,
    *,
    tenant: str,
    purpose: str,
    name: str,
    modality: str,
    size_bytes: int,
    part_bytes: int,
    file_digest: str | None = None,
) -> Upload:
    """Note what will come. QuotaExceeded where too much is under way already, or would not fit once it is complete."""
    under_way = select(func.count(), func.coalesce(func.sum(Upload.size_bytes), 0)).where(
        Upload.tenant == tenant, Upload.dataset_id.is_(None), _is_alive()
    )
    lock_quota(session, tenant)
    n_under_way, reserved_bytes = session.execute(under_way).one()
    require_room(session, tenant, "datasets", settings, size_bytes=int(reserved_bytes) + size_bytes)
    if n_under_way >= settings.max_uploads:
        raise QuotaExceeded(
            f"{n_under_way} uploads are under way, and {settings.max_uploads} is the limit: complete or delete some"
        )
    upload = Upload(
        id=new_id("up"),
        tenant=tenant,
        purpose=purpose,
        name=name,
        modality=modality,
        size_bytes=size_bytes,
        part_bytes=part_bytes,
        file_digest=file_digest,
        expires_at=_in(settings.upload_expiry_s),
    )
    session.add(upload)
    session.flush()
    session.refresh(upload)
    return upload


def get(session: Session, tenant: str, upload_id: str) -> Upload:
    """The tenant's upload; NotFound for another's, and for one that has expired."""
    return _found(session, tenant, upload_id)


def hold(session: Session, tenant: str, upload_id: str) -> Upload:
    """The same, which nobody else changes before this transaction ends."""
    return _found(session, tenant, upload_id, is_held=True)


def list_uploads(
    session: Session, tenant: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[Upload], bool]:
    """The tenant's uploads, newest first, and whether there are more."""
    return page(session, select(Upload).where(Upload.tenant == tenant, _is_alive()), Upload, after=after, limit=limit)


def parts_of(session: Session, upload_id: str) -> Sequence[UploadPart]:
    """The parts that have arrived, in order."""
    return session.scalars(select(UploadPart).filter_by(upload_id=upload_id).order_by(UploadPart.n)).all()


def part_count(upload: Upload) -> int:
    """How many parts the whole has."""
    return -(-upload.size_bytes // upload.part_bytes)


def part_size(upload: Upload, n: int) -> int:
    """Bytes of part n, of which only the last may be shorter; NotFound where there is no such part."""
    n_parts = part_count(upload)
    if not 1 <= n <= n_parts:
        raise NotFound(f"{upload.id} has no part {n}: its parts are 1 to {n_parts}", param="n")
    return min(upload.part_bytes, upload.size_bytes - (n - 1) * upload.part_bytes)


def add_part(session: Session, tenant: str, upload_id: str, n: int, blob: BlobInfo, *, expiry_s: float) -> None:
    """Note a part (a blob already); no more than that where the same is there, PartConflict where another is.

    StorageUnavailable where the blob went meanwhile, with another upload of the same bytes.
    """
    upload = hold(session, tenant, upload_id)
    if upload.dataset_id is not None:
        raise UploadCompleted(f"{upload_id} is complete: it has become {upload.dataset_id}")
    known = session.get(UploadPart, (upload_id, n))
    if known is not None:
        require_same(known, blob.sha256)
        return
    kept = select(Blob.sha256).filter_by(sha256=blob.sha256).with_for_update(key_share=True, read=True)
    if session.scalars(kept).one_or_none() is None:
        raise StorageUnavailable(f"the bytes of part {n} were deleted meanwhile: send them again")
    session.add(UploadPart(upload_id=upload_id, n=n, sha256=blob.sha256, size_bytes=blob.size_bytes))
    upload.expires_at = _in(expiry_s)


def require_same(part: UploadPart, sha256: str) -> None:
    """PartConflict where a part that is there has other bytes."""
    if part.sha256 != sha256:
        raise PartConflict(f"part {part.n} is there with the SHA-256 {part.sha256}; this one has {sha256}")


def require_complete(session: Session, upload: Upload) -> Sequence[UploadPart]:
    """All parts in order; UploadIncomplete naming those that are missing."""
    parts = parts_of(session, upload.id)
    missing = sorted(set(range(1, part_count(upload) + 1)) - {part.n for part in parts})
    if missing:
        shown = ", ".join(map(str, missing[:_NAMED_PARTS]))
        more = f" and {len(missing) - _NAMED_PARTS} more" if len(missing) > _NAMED_PARTS else ""
        raise UploadIncomplete(f"{len(missing)} of {part_count(upload)} parts are missing: {shown}{more}")
    return parts


def finish(session: Session, upload: Upload, dataset_id: str) -> None:
    """Note what the upload (held) has become, and forget its parts; their blobs are the caller's to drop."""
    upload.dataset_id = dataset_id
    session.execute(sql_delete(UploadPart).where(UploadPart.upload_id == upload.id))


def delete(session: Session, tenant: str, upload_id: str) -> list[str]:
    """Forget an upload; what it has become stays. The SHA-256 of its parts, to be dropped once this is committed."""
    upload = hold(session, tenant, upload_id)
    blobs = [part.sha256 for part in parts_of(session, upload_id)]
    session.delete(upload)
    return blobs


def drop(database: Database, blobs: Blobs, sha256s: Sequence[str]) -> None:
    """Delete the blobs of parts that are forgotten, unless something else refers to them."""
    for sha256 in dict.fromkeys(sha256s):
        delete_orphan(database, blobs, sha256)


def delete_expired(database: Database, blobs: Blobs) -> int:
    """Delete uploads whose time has run out, with what they hold; how many."""
    n_deleted = 0
    while True:
        with database.session() as session:
            query = select(Upload).where(~_is_alive()).order_by(Upload.id).limit(_BATCH)
            expired = session.scalars(query.with_for_update(skip_locked=True)).all()
            held = [part.sha256 for upload in expired for part in parts_of(session, upload.id)]
            for upload in expired:
                session.delete(upload)
        drop(database, blobs, held)
        n_deleted += len(expired)
        if len(expired) < _BATCH:
            return n_deleted


def _found(session: Session, tenant: str, upload_id: str, *, is_held: bool = False) -> Upload:
    query = select(Upload).where(Upload.tenant == tenant, Upload.id == upload_id, _is_alive())
    if is_held:
        query = query.with_for_update().execution_options(populate_existing=True)
    upload = session.scalars(query).one_or_none()
    if upload is None:
        raise NotFound(f"there is no upload {upload_id}; one that gets no new part expires")
    return upload


def _is_alive() -> ColumnElement[bool]:
    return Upload.expires_at > func.clock_timestamp()


def _in(seconds: float) -> ColumnElement[datetime]:
    return cast(func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds), DateTime(timezone=True))
