"""Jobs as clients see them: submit, read, list, cancel, retry, delete. What a worker does is in `attempts`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Select, case, func, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.orm import Session

from mr_core.job_spec import PART_KINDS
from service import backbones, datasets, events, studies
from service.errors import IdempotencyKeyReused, JobFinished, JobNotFinished, JobNotRetryable, NotFound, QuotaExceeded
from service.ids import new_id
from service.models import TERMINAL_STATUSES, Job
from service.pages import count, page

LEGAL_CHANGES: Final[Mapping[str, frozenset[str]]] = {
    "queued": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"queued", "cancelling", "succeeded", "failed"}),
    "cancelling": frozenset({"cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""From status to statuses; a trigger of the table holds every writer to it."""

INTERNAL_KINDS: Final = frozenset({datasets.VALIDATE})
"""Kinds that the service gives itself; clients neither see nor touch these jobs."""


def create_job(
    session: Session,
    *,
    tenant: str,
    kind: str,
    spec: Mapping[str, Any],
    queue: str,
    dataset_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    max_attempts: int = 3,
    priority: int = 0,
    deadline_s: float | None = None,
    idempotency_key: str | None = None,
    max_unfinished: int | None = None,
    require_room: Callable[[str], object] | None = None,
    retry_of: str | None = None,
    key_id: str | None = None,
    parent_id: str | None = None,
    part: str | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Job:
    """A queued job; its row is also what the sweeper dispatches from, so no broker is called here.

    With an `idempotency_key` that the tenant has used before, the job of that time, or IdempotencyKeyReused where the
    spec differs. The dataset is held until the end of the transaction, so that it cannot be deleted meanwhile.
    `require_room` is given the kind of a job that is new, and raises where there is no room for what it leaves.
    `environment` is the arithmetic of its first attempt; that of the worker that claims it if None.
    """
    if dataset_id is not None:
        datasets.hold(session, tenant, dataset_id)
    if idempotency_key is not None:
        # Two requests with one key wait for each other here, instead of both finding no job.
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{tenant} {idempotency_key}", 0))))
        earlier = session.scalars(select(Job).filter_by(tenant=tenant, idempotency_key=idempotency_key)).one_or_none()
        if earlier is not None:
            if earlier.spec != spec:
                raise IdempotencyKeyReused(f"this Idempotency-Key belongs to {earlier.id}, which has another spec")
            return earlier
    if max_unfinished is not None:
        unfinished = count_unfinished(session, tenant)
        if unfinished >= max_unfinished:
            raise QuotaExceeded(f"{unfinished} jobs have not ended yet, and {max_unfinished} is the limit")
    if require_room is not None:
        require_room(kind)
    job = Job(
        id=new_id("job"),
        tenant=tenant,
        kind=kind,
        spec=dict(spec),
        queue=queue,
        dataset_id=dataset_id,
        metadata_=dict(metadata or {}),
        max_attempts=max_attempts,
        priority=priority,
        idempotency_key=idempotency_key,
        retry_of=retry_of,
        key_id=key_id,
        parent_id=parent_id,
        part=part,
        environment=None if environment is None else dict(environment),
        next_dispatch_at=func.now(),
        deadline_at=None if deadline_s is None else func.now() + func.make_interval(0, 0, 0, 0, 0, 0, deadline_s),
    )
    session.add(job)
    session.flush()
    events.append(session, job.id, "status", {"status": "queued"})
    events.notify(session, events.DISPATCH_CHANNEL, queue)
    session.refresh(job)
    return job


def get_job(session: Session, tenant: str, job_id: str) -> Job:
    """The tenant's job; NotFound for another's."""
    job = session.scalars(_visible(tenant).where(Job.id == job_id)).one_or_none()
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def list_jobs(
    session: Session,
    tenant: str,
    *,
    status: str | None = None,
    kind: str | None = None,
    dataset: str | None = None,
    parent: str | None = None,
    metadata: Mapping[str, str] | None = None,
    after: str | None = None,
    limit: int = 20,
) -> tuple[Sequence[Job], bool]:
    """The tenant's jobs that fit every filter given, newest first, and whether there are more.

    Sub-jobs are listed where their `parent` is named, and only there.
    """
    query = _visible(tenant).where(Job.parent_id.is_(None) if parent is None else Job.parent_id == parent)
    for column, value in ((Job.status, status), (Job.kind, kind), (Job.dataset_id, dataset)):
        if value is not None:
            query = query.where(column == value)
    if metadata:
        query = query.where(Job.metadata_.contains(dict(metadata)))
    return page(session, query, Job, after=after, limit=limit)


def count_unfinished(session: Session, tenant: str) -> int:
    """How many of the tenant's jobs have not ended, their parts aside."""
    own = _visible(tenant).where(Job.parent_id.is_(None))
    return count(session, own.where(Job.status.not_in(TERMINAL_STATUSES)))


def request_cancel(session: Session, tenant: str, job_id: str) -> Job:
    """A queued job is cancelled at once, a running one is told to stop; JobFinished if it has ended.

    Asking again while it stops changes nothing.
    """
    job = get_job(session, tenant, job_id)
    if cancel(session, job_id) is None:
        session.refresh(job)
        if job.status in TERMINAL_STATUSES:
            raise JobFinished(f"{job_id} has {job.status} already")
    session.refresh(job)
    return job


def cancel(session: Session, job_id: str) -> str | None:
    """The status that a cancel leads to, or None where there is nothing to cancel (any more)."""
    is_queued = Job.status == "queued"
    changed = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status.in_(("queued", "running")))
        .values(
            status=case((is_queued, "cancelled"), else_="cancelling"),
            cancel_requested_at=func.clock_timestamp(),
            finished_at=case((is_queued, func.clock_timestamp())),
            next_dispatch_at=None,
            event_seq=Job.event_seq + 1,
        )
        .returning(Job.status, Job.event_seq)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if changed is None:
        return None
    events.write(session, job_id, changed.event_seq, [("status", {"status": changed.status}, "info")])
    return str(changed.status)


def retry(
    session: Session,
    tenant: str,
    job_id: str,
    *,
    max_unfinished: int | None = None,
    require_room: Callable[[str], object] | None = None,
    key_id: str | None = None,
) -> Job:
    """A new job with the spec of one that failed or was cancelled; an ended job itself never moves again."""
    job = get_job(session, tenant, job_id)
    if job.status not in ("failed", "cancelled"):
        raise JobNotRetryable(f"{job_id} is {job.status}, expected failed or cancelled")
    if job.kind in PART_KINDS:
        raise JobNotRetryable(f"{job_id} is a {job.kind}, which is only ever a part of a job: retry {job.parent_id}")
    return create_job(
        session,
        tenant=tenant,
        kind=job.kind,
        spec=job.spec,
        queue=job.queue,
        dataset_id=job.dataset_id,
        metadata=job.metadata_,
        max_attempts=job.max_attempts,
        priority=job.priority,
        max_unfinished=max_unfinished,
        require_room=require_room,
        retry_of=job.id,
        key_id=key_id,
    )


def delete(session: Session, tenant: str, job_id: str) -> None:
    """Forget an ended job with its sub-jobs, events, checkpoints, artifacts and study, and the backbone it has trained.

    BackboneInUse while a job that has not ended names that one. An adapter stays.
    """
    job = get_job(session, tenant, job_id)
    trained = backbones.trained_by(session, tenant, job_id)
    if trained is not None:
        backbones.require_unused(session, tenant, trained.id)
    gone = session.scalars(
        sql_delete(Job).where(Job.id == job_id, Job.status.in_(TERMINAL_STATUSES)).returning(Job.id)
    ).one_or_none()
    if gone is None:
        raise JobNotFinished(f"{job_id} is {job.status}: cancel it first")
    studies.forget(session, job_id)


def _visible(tenant: str) -> Select[Job]:
    return select(Job).where(Job.tenant == tenant, Job.kind.not_in(INTERNAL_KINDS))
