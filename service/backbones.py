"""A tenant's source models, registered or trained by its jobs; their weights are blobs, or elsewhere."""

from collections.abc import Sequence

from sqlalchemy import delete as sql_delete
from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mr_core.backbones.description import (
    RANDOM_PREFIX,
    REMOTE_PREFIX,
    TRAINED_PREFIX,
    BackboneDescription,
    BackboneOutputs,
)
from mr_core.backbones.remote.description import remote_sha256
from service.errors import BackboneInUse, Conflict, NotFound, TrainedBackboneMissing
from service.ids import new_id
from service.models import TERMINAL_STATUSES, Job, RegisteredBackbone, StoredAdapter
from service.pages import page

_UPLOADED_PREFIX = "bb_"
_TRAINS = "train_source"


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
    job_id: str | None = None,
) -> RegisteredBackbone:
    """Register weights (already a blob) that were inspected; the id of the description becomes the new id.

    That of a backbone which a job has trained is `trained:<job>`.
    """
    backbone_id = new_id("bb") if job_id is None else TRAINED_PREFIX + job_id
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
        job_id=job_id,
    )
    session.add(backbone)
    session.flush()
    session.refresh(backbone)
    return backbone


def register_remote(
    session: Session, *, tenant: str, name: str, description: BackboneDescription
) -> RegisteredBackbone:
    """Register a model that answers over HTTP as `remote:<name>`; Conflict where the tenant has one of that name."""
    backbone_id = REMOTE_PREFIX + name
    if session.get(RegisteredBackbone, (tenant, backbone_id)) is not None:
        raise Conflict(f"there is a backbone {backbone_id} already: delete it first", param="name")
    backbone = RegisteredBackbone(
        id=backbone_id,
        tenant=tenant,
        name=name,
        description=description.model_copy(update={"id": backbone_id}).model_dump(mode="json", by_alias=True),
        sha256=remote_sha256(description),
        size_bytes=0,
        parameters=0,
        outputs=BackboneOutputs(labels=len(description.classes or ()), embedding=None, text=False).model_dump(),
        job_id=None,
    )
    try:
        with session.begin_nested():
            session.add(backbone)
    except IntegrityError as error:
        raise Conflict(f"there is a backbone {backbone_id} already: delete it first", param="name") from error
    session.refresh(backbone)
    return backbone


def is_remote(backbone_id: str) -> bool:
    """Whether an id is that of a model which only answers over HTTP."""
    return backbone_id.startswith(REMOTE_PREFIX)


def get(session: Session, tenant: str, backbone_id: str) -> RegisteredBackbone:
    """The tenant's backbone; NotFound for another's, TrainedBackboneMissing saying what became of its job."""
    backbone = session.scalars(select(RegisteredBackbone).filter_by(tenant=tenant, id=backbone_id)).one_or_none()
    if backbone is None and backbone_id.startswith(TRAINED_PREFIX):
        raise TrainedBackboneMissing(_why_missing(session, tenant, backbone_id), param="backbone")
    if backbone is None:
        raise NotFound(f"there is no backbone {backbone_id}", param="backbone")
    return backbone


def is_registered(backbone_id: str) -> bool:
    """Whether an id is that of a row here, uploaded, trained or remote; others mr_core finds by itself."""
    return backbone_id.startswith((_UPLOADED_PREFIX, TRAINED_PREFIX, REMOTE_PREFIX))


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
    require_unused(session, tenant, backbone_id)
    session.execute(sql_delete(RegisteredBackbone).filter_by(tenant=tenant, id=backbone.id))


def trained_by(session: Session, tenant: str, job_id: str) -> RegisteredBackbone | None:
    """The backbone that a job has trained, if it is still there."""
    return session.scalars(select(RegisteredBackbone).filter_by(tenant=tenant, job_id=job_id)).one_or_none()


def require_unused(session: Session, tenant: str, backbone_id: str) -> None:
    """BackboneInUse while a job that has not ended names it: itself, in a list, or by an adapter around it."""
    names = (backbone_id, RANDOM_PREFIX + backbone_id)
    around_it = select(StoredAdapter.id).where(
        StoredAdapter.tenant == tenant, StoredAdapter.config["backbone"]["id"].astext == backbone_id
    )
    users = select(Job.id).where(
        Job.tenant == tenant,
        Job.status.not_in(TERMINAL_STATUSES),
        or_(
            *(Job.spec[field].astext == name for name in names for field in ("backbone", "encoder")),
            *(Job.spec["backbones"].contains([name]) for name in names),
            Job.spec["adapter"].astext.in_(around_it),
        ),
    )
    needed_by = session.scalars(users.limit(5)).all()
    if needed_by:
        raise BackboneInUse(f"{backbone_id} is needed by {', '.join(needed_by)}", param="backbone")


def _why_missing(session: Session, tenant: str, backbone_id: str) -> str:
    job_id = backbone_id.removeprefix(TRAINED_PREFIX)
    job = session.scalars(select(Job).filter_by(tenant=tenant, id=job_id)).one_or_none()
    if job is None:
        return f"there is no backbone {backbone_id}: the job {job_id} that trained it was deleted, or never was"
    if job.kind != _TRAINS:
        return f"there is no backbone {backbone_id}: {job_id} is a {job.kind} job, which trains no source model"
    if job.status != "succeeded":
        return f"there is no backbone {backbone_id}: its job is {job.status}, and leaves one when it has succeeded"
    return f"there is no backbone {backbone_id}: it was deleted after its job had trained it"
