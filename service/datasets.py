"""A tenant's datasets. A new one is validated by an internal job before any other job may read it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import delete as sql_delete
from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from mr_core.errors import DatasetError
from service import feature_sets
from service.errors import DatasetInUse, DatasetNotReady, NotFound
from service.ids import new_id
from service.models import TERMINAL_STATUSES, Dataset, Job
from service.pages import page

VALIDATE: Final = "validate_dataset"
"""Kind of the internal job that turns an upload into a pack."""


def create(
    session: Session,
    *,
    tenant: str,
    name: str,
    modality: str,
    sha256: str,
    size_bytes: int,
    max_attempts: int = 3,
    key_id: str | None = None,
) -> Dataset:
    """Note an upload (already a blob) and queue its validation."""
    from service.jobs import create_job  # a dataset makes a job and a job names a dataset

    dataset = Dataset(
        id=new_id("ds"),
        tenant=tenant,
        name=name,
        modality=modality,
        status="validating",
        sha256=sha256,
        size_bytes=size_bytes,
        classes=[],
        splits={},
    )
    session.add(dataset)
    session.flush()
    spec = {"kind": VALIDATE, "dataset": dataset.id}
    # Validation is quick and others wait for it, so it goes first.
    create_job(
        session,
        tenant=tenant,
        kind=VALIDATE,
        spec=spec,
        queue="io",
        dataset_id=dataset.id,
        max_attempts=max_attempts,
        priority=1,
        key_id=key_id,
    )
    session.refresh(dataset)
    return dataset


def get(session: Session, tenant: str, dataset_id: str) -> Dataset:
    """The tenant's dataset; NotFound for another's."""
    dataset = session.scalars(select(Dataset).filter_by(tenant=tenant, id=dataset_id)).one_or_none()
    if dataset is None:
        raise NotFound(f"there is no dataset {dataset_id}", param="dataset")
    return dataset


def list_datasets(
    session: Session, tenant: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[Dataset], bool]:
    """The tenant's datasets, newest first, and whether there are more."""
    return page(session, select(Dataset).filter_by(tenant=tenant), Dataset, after=after, limit=limit)


def hold(session: Session, tenant: str, dataset_id: str) -> Dataset:
    """The tenant's dataset, which cannot be deleted before this transaction ends."""
    query = select(Dataset).filter_by(tenant=tenant, id=dataset_id).with_for_update(key_share=True, read=True)
    dataset = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if dataset is None:
        raise NotFound(f"there is no dataset {dataset_id}", param="dataset")
    return dataset


def require_ready(session: Session, tenant: str, dataset_id: str) -> Dataset:
    """The same, if jobs may read it: DatasetNotReady while it is validated, mr_core's DatasetError if it is invalid."""
    dataset = hold(session, tenant, dataset_id)
    if dataset.status == "validating":
        raise DatasetNotReady(f"{dataset_id} is still being validated", param="dataset")
    if dataset.status == "invalid":
        reason = (dataset.error or {}).get("detail", "")
        raise DatasetError(f"{dataset_id} is invalid: {reason}", param="dataset")
    return dataset


def set_ready(
    session: Session,
    dataset_id: str,
    *,
    pack_sha256: str,
    classes: Sequence[str],
    splits: Mapping[str, int],
    report: Mapping[str, Any],
) -> None:
    """Validation passed; the caller's transaction also ends the validating job, and is fenced by that."""
    _settle(
        session,
        dataset_id,
        status="ready",
        pack_sha256=pack_sha256,
        classes=list(classes),
        splits=dict(splits),
        report=dict(report),
        error=None,
    )


def set_invalid(
    session: Session, dataset_id: str, *, code: str, detail: str, report: Mapping[str, Any] | None = None
) -> None:
    """Validation failed, for a reason in the dataset or because it could not be carried out."""
    error = {"code": code, "detail": detail, "param": None}
    _settle(session, dataset_id, status="invalid", error=error, report=None if report is None else dict(report))


def delete(session: Session, tenant: str, dataset_id: str) -> None:
    """Forget a dataset; DatasetInUse while a job that has not ended needs it. Its blobs go when nothing needs them."""
    from service.jobs import cancel

    unfinished = select(Job).where(
        Job.dataset_id == dataset_id, Job.tenant == tenant, Job.status.not_in(TERMINAL_STATUSES)
    )
    # The job before the dataset, as an ending validation locks them; otherwise the two could wait for each other.
    validating = session.scalars(unfinished.where(Job.kind == VALIDATE).with_for_update()).all()
    query = select(Dataset).filter_by(tenant=tenant, id=dataset_id).with_for_update()
    dataset = session.scalars(query).one_or_none()
    if dataset is None:
        raise NotFound(f"there is no dataset {dataset_id}")
    needed_by = session.scalars(unfinished.where(Job.kind != VALIDATE).limit(5)).all()
    if needed_by:
        raise DatasetInUse(f"{dataset_id} is needed by {', '.join(job.id for job in needed_by)}")
    for job in validating:
        cancel(session, job.id)
    feature_sets.forget_dataset(session, tenant, dataset.sha256)
    session.execute(sql_delete(Dataset).where(Dataset.id == dataset_id))


def delete_forgotten_validations(session: Session) -> None:
    """Delete the ended validations of datasets that are gone: no route shows or deletes them."""
    forgotten = Job.kind == VALIDATE, Job.status.in_(TERMINAL_STATUSES), ~exists().where(Dataset.id == Job.dataset_id)
    session.execute(sql_delete(Job).where(*forgotten))


def _settle(session: Session, dataset_id: str, **values: Any) -> None:
    session.execute(update(Dataset).where(Dataset.id == dataset_id, Dataset.status == "validating").values(**values))
