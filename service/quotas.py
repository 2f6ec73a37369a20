"""What one tenant may keep: datasets, backbones and adapters, by number and by the bytes of their files."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.errors import QuotaExceeded
from service.models import Dataset, RegisteredBackbone, StoredAdapter
from service.settings import Settings

Kept = Literal["datasets", "backbones", "adapters"]

_TABLES: Final[dict[Kept, Any]] = {
    "datasets": Dataset,
    "backbones": RegisteredBackbone,
    "adapters": StoredAdapter,
}


@dataclass(frozen=True)
class Room:
    """What a tenant has stored, and may."""

    used_bytes: int
    limit_bytes: int

    def require(self, size_bytes: int) -> None:
        """QuotaExceeded where that many bytes more do not fit."""
        if self.used_bytes + size_bytes > self.limit_bytes:
            raise QuotaExceeded(
                f"{self.used_bytes} bytes are stored, and with {size_bytes} more they would pass the limit of "
                f"{self.limit_bytes}: delete datasets, backbones or adapters"
            )


def require_room(session: Session, tenant: str, kept: Kept, settings: Settings, *, size_bytes: int = 1) -> Room:
    """The room for one more of this kind; QuotaExceeded where number or bytes do not allow it."""
    n_kept, limit = count_kept(session, tenant, kept), limit_of(settings, kept)
    if n_kept >= limit:
        raise QuotaExceeded(f"there are {n_kept} {kept}, and {limit} is the limit: delete some first")
    room = Room(used_bytes=stored_bytes(session, tenant), limit_bytes=settings.max_stored_bytes)
    room.require(size_bytes)
    return room


def take_room(session: Session, tenant: str, kept: Kept, settings: Settings, *, size_bytes: int) -> None:
    """The same for one that this transaction adds: others of the tenant wait until it has ended."""
    lock_quota(session, tenant)
    require_room(session, tenant, kept, settings, size_bytes=size_bytes)


def lock_quota(session: Session, tenant: str) -> None:
    """Others who add something of the tenant's wait until this transaction has ended."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"quota {tenant}", 0))))


def count_kept(session: Session, tenant: str, kept: Kept) -> int:
    """How many of a kind the tenant has."""
    return session.scalars(select(func.count()).select_from(_TABLES[kept]).filter_by(tenant=tenant)).one()


def stored_bytes(session: Session, tenant: str) -> int:
    """Bytes of the tenant's files: archives and weights as they were uploaded, adapters as they are downloaded."""
    sums = [
        select(func.coalesce(func.sum(table.size_bytes), 0)).where(table.tenant == tenant).scalar_subquery()
        for table in _TABLES.values()
    ]
    return sum(int(value) for value in session.execute(select(*sums)).one())


def limit_of(settings: Settings, kept: Kept) -> int:
    """How many of a kind a tenant may have."""
    limits: dict[Kept, int] = {
        "datasets": settings.max_datasets,
        "backbones": settings.max_backbones,
        "adapters": settings.max_adapters,
    }
    return limits[kept]
