"""Names of a tenant's own for adapters: a client keeps the name while the adapter behind it is replaced."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.errors import NotFound, QuotaExceeded
from service.models import AdapterAlias, StoredAdapter

MAX_ALIASES: Final = 1000


def put(session: Session, tenant: str, name: str, adapter_id: str) -> tuple[AdapterAlias, bool]:
    """Make the alias or move it, and whether it is new; NotFound for another tenant's adapter."""
    held = select(StoredAdapter.id).filter_by(tenant=tenant, id=adapter_id).with_for_update(key_share=True, read=True)
    if session.scalars(held).one_or_none() is None:
        raise NotFound(f"there is no adapter {adapter_id}", param="adapter")
    known = _find(session, tenant, name)
    n_aliases = session.scalars(select(func.count()).select_from(AdapterAlias).filter_by(tenant=tenant)).one()
    if known is None and n_aliases >= MAX_ALIASES:
        raise QuotaExceeded(f"there are {n_aliases} aliases, and {MAX_ALIASES} is the limit: delete some first")
    row = insert(AdapterAlias).values(tenant=tenant, name=name, adapter_id=adapter_id)
    moved = row.on_conflict_do_update(
        index_elements=["tenant", "name"], set_={"adapter_id": adapter_id, "updated_at": func.clock_timestamp()}
    )
    query = select(AdapterAlias).from_statement(moved.returning(AdapterAlias))
    return session.scalars(query.execution_options(populate_existing=True)).one(), known is None


def list_aliases(session: Session, tenant: str) -> Sequence[AdapterAlias]:
    """The tenant's aliases by name."""
    return session.scalars(select(AdapterAlias).filter_by(tenant=tenant).order_by(AdapterAlias.name)).all()


def delete(session: Session, tenant: str, name: str) -> None:
    """Forget an alias; its adapter stays."""
    gone = sql_delete(AdapterAlias).filter_by(tenant=tenant, name=name).returning(AdapterAlias.name)
    if session.scalars(gone).one_or_none() is None:
        raise NotFound(f"there is no alias {name}", param="name")


def _find(session: Session, tenant: str, name: str) -> AdapterAlias | None:
    return session.scalars(select(AdapterAlias).filter_by(tenant=tenant, name=name)).one_or_none()
