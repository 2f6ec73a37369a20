"""A tenant's registered source models; their weights are blobs."""

from collections.abc import Sequence

from sqlalchemy import delete as sql_delete
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from mr_core.backbones.description import RANDOM_PREFIX, BackboneDescription, BackboneOutputs
from service.errors import BackboneInUse, NotFound
from service.ids import new_id
from service.models import TERMINAL_STATUSES, Job, RegisteredBackbone
from service.pages import page


def create(
    session: Session,
    *,
    tenant: str,
    name: str,
    description: BackboneDescription,
    sha256: str,
    size_bytes: int,
    parameters: int,
    outputs: BackboneOutputs,
) -> RegisteredBackbone:
    """Register weights (already a blob) that were inspected; the id of the description becomes the new id."""
    backbone_id = new_id("bb")
    stored = description.model_copy(update={"id": backbone_id, "sha256": sha256})
    backbone = RegisteredBackbone(
        id=backbone_id,
        tenant=tenant,
        name=name,
        description=stored.model_dump(mode="json", by_alias=True),
        sha256=sha256,
        size_bytes=size_bytes,
        parameters=parameters,
        outputs=outputs.model_dump(mode="json"),
    )
    session.add(backbone)
    session.flush()
    session.refresh(backbone)
    return backbone


def get(session: Session, tenant: str, backbone_id: str) -> RegisteredBackbone:
    """The tenant's backbone; NotFound for another's."""
    backbone = session.scalars(select(RegisteredBackbone).filter_by(tenant=tenant, id=backbone_id)).one_or_none()
    if backbone is None:
        raise NotFound(f"there is no backbone {backbone_id}", param="backbone")
    return backbone


def describe(backbone: RegisteredBackbone) -> BackboneDescription:
    """The stored description, as mr_core reads it."""
    return BackboneDescription.model_validate(backbone.description)


def has_weights(session: Session, tenant: str, sha256: str) -> bool:
    """Whether the tenant has registered weights with this SHA-256."""
    return (
        session.scalars(select(RegisteredBackbone.id).filter_by(tenant=tenant, sha256=sha256).limit(1)).first()
        is not None
    )


def list_backbones(
    session: Session, tenant: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[RegisteredBackbone], bool]:
    """The tenant's backbones, newest first, and whether there are more."""
    query = select(RegisteredBackbone).filter_by(tenant=tenant)
    return page(session, query, RegisteredBackbone, after=after, limit=limit)


def delete(session: Session, tenant: str, backbone_id: str) -> None:
    """Forget a backbone; BackboneInUse while a job that has not ended names it."""
    backbone = get(session, tenant, backbone_id)
    names = (backbone_id, RANDOM_PREFIX + backbone_id)
    users = select(Job.id).where(
        Job.tenant == tenant,
        Job.status.not_in(TERMINAL_STATUSES),
        or_(*(Job.spec["backbone"].astext == name for name in names)),
    )
    needed_by = session.scalars(users.limit(5)).all()
    if needed_by:
        raise BackboneInUse(f"{backbone_id} is needed by {', '.join(needed_by)}")
    session.execute(sql_delete(RegisteredBackbone).where(RegisteredBackbone.id == backbone.id))
