"""A tenant's adapters. Their bytes are blobs and never change."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import AdapterInUse, NotFound
from service.ids import new_id
from service.models import AdapterAlias, StoredAdapter
from service.pages import page

SCRATCH_PREFIX = "scratch:"


def create(
    session: Session,
    *,
    tenant: str,
    job_id: str | None,
    sha256: str,
    size_bytes: int,
    config: Mapping[str, Any],
    adapter_id: str | None = None,
) -> StoredAdapter:
    """Note an adapter whose zip is already a blob (of this transaction)."""
    adapter = StoredAdapter(
        id=adapter_id or new_id("ad"),
        tenant=tenant,
        job_id=job_id,
        sha256=sha256,
        size_bytes=size_bytes,
        config=dict(config),
    )
    session.add(adapter)
    session.flush()
    session.refresh(adapter)
    return adapter


def get(session: Session, tenant: str, adapter_id: str) -> StoredAdapter:
    """The tenant's adapter; NotFound for another's."""
    adapter = session.scalars(select(StoredAdapter).filter_by(tenant=tenant, id=adapter_id)).one_or_none()
    if adapter is None:
        raise NotFound(f"there is no adapter {adapter_id}", param="adapter")
    return adapter


def find(session: Session, tenant: str, name: str) -> StoredAdapter:
    """The tenant's adapter by its id or by an alias; NotFound for another's."""
    if name.startswith("ad_"):
        return get(session, tenant, name)
    query = select(StoredAdapter).join(AdapterAlias, AdapterAlias.adapter_id == StoredAdapter.id)
    mine = query.where(AdapterAlias.tenant == tenant, AdapterAlias.name == name, StoredAdapter.tenant == tenant)
    adapter = session.scalars(mine).one_or_none()
    if adapter is None:
        raise NotFound(f"there is no adapter {name}, nor an alias of that name", param="adapter")
    return adapter


def with_content(session: Session, tenant: str, sha256: str) -> StoredAdapter | None:
    """The tenant's adapter of these very bytes, the oldest where there are several."""
    query = select(StoredAdapter).filter_by(tenant=tenant, sha256=sha256)
    return session.scalars(query.order_by(StoredAdapter.created_at, StoredAdapter.id).limit(1)).one_or_none()


def backbone_named(session: Session, tenant: str, spec: Mapping[str, Any]) -> str | None:
    """The id of the backbone that a stored spec works with: its own, else that of the adapter it names.

    Of a source model from scratch, which has none, a name of its architecture.
    """
    if spec.get("kind") == "train_source" and spec.get("backbone") is None:
        return architecture_trained(spec)
    if spec.get("backbone") is not None or spec.get("adapter") is None:
        return spec.get("backbone")
    adapter = session.scalars(select(StoredAdapter).filter_by(tenant=tenant, id=spec["adapter"])).one_or_none()
    trained_on = adapter.config.get("backbone") if adapter is not None else None
    return trained_on.get("id") if isinstance(trained_on, dict) else trained_on


def architecture_trained(spec: Mapping[str, Any]) -> str:
    """What runs of a source model from scratch are told apart by: `scratch:cnn/depth=3,width=32/default`."""
    architecture = dict(spec["architecture"])
    kind = str(architecture.pop("kind"))
    details = ",".join(f"{name}={value}" for name, value in sorted(architecture.items()))
    return f"{SCRATCH_PREFIX}{kind}/{details}/{spec.get('canvas_size') or 'default'}"


def list_adapters(
    session: Session, tenant: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[StoredAdapter], bool]:
    """The tenant's adapters, newest first, and whether there are more."""
    return page(session, select(StoredAdapter).filter_by(tenant=tenant), StoredAdapter, after=after, limit=limit)


def delete(session: Session, tenant: str, adapter_id: str) -> None:
    """Forget an adapter, AdapterInUse while an alias leads to it; copies that were downloaded go on working."""
    query = select(StoredAdapter).filter_by(tenant=tenant, id=adapter_id).with_for_update()
    adapter = session.scalars(query).one_or_none()
    if adapter is None:
        raise NotFound(f"there is no adapter {adapter_id}", param="adapter")
    leading = session.scalars(select(AdapterAlias.name).filter_by(adapter_id=adapter_id).limit(5)).all()
    if leading:
        raise AdapterInUse(f"{adapter_id} is what the alias {', '.join(leading)} leads to: move or delete that first")
    session.execute(sql_delete(StoredAdapter).where(StoredAdapter.id == adapter.id))
