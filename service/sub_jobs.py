"""Jobs that a job is made of: it hands them to the queue, waits without a worker, and goes on when all have ended.

A job that waits is queued with nothing due (`next_dispatch_at` is null), so nobody rings for it or claims it.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from service import attempts, workers
from service.attempts import Claim
from service.jobs import cancel, create_job
from service.models import TERMINAL_STATUSES, Job

MOST: Final = 1000
"""Sub-jobs of one job."""


def ended(session: Session, parent_id: str) -> dict[str, Job]:
    """The job's parts that have ended, by name."""
    query = select(Job).where(Job.parent_id == parent_id, Job.status.in_(TERMINAL_STATUSES))
    return {job.part: job for job in session.scalars(query) if job.part is not None}


def suspend(session: Session, claim: Claim, specs: Mapping[str, Mapping[str, Any]]) -> None:
    """Queue the parts that are not there yet, and have the job wait for all of them; a cancel asked for comes first.

    Fenced like every write of an attempt. ValueError for more than a thousand parts.
    """
    if len(specs) > MOST:
        raise ValueError(f"{len(specs)} sub-jobs, expected at most {MOST}")
    parent = attempts.wait(session, claim, f"waits for {len(specs)} sub-jobs")
    if parent is None:
        return
    known = set(session.scalars(select(Job.part).where(Job.parent_id == parent.id)))
    for part, spec in specs.items():
        if part not in known:
            create_job(
                session,
                tenant=parent.tenant,
                kind=spec["kind"],
                spec=spec,
                queue=workers.choose_queue(session, spec["device"]),
                dataset_id=parent.dataset_id,
                max_attempts=parent.max_attempts,
                priority=parent.priority,
                key_id=parent.key_id,
                parent_id=parent.id,
                part=part,
            )


def wake(session: Session) -> int:
    """Make due the jobs whose parts have all ended, and tell the others' progress; how many were woken."""
    waiting = select(Job.id).where(Job.status == "queued", Job.next_dispatch_at.is_(None))
    ids = session.scalars(waiting.with_for_update(skip_locked=True)).all()
    if not ids:
        return 0
    done = func.count().filter(Job.status.in_(TERMINAL_STATUSES))
    counts = select(Job.parent_id, done, func.count()).where(Job.parent_id.in_(ids)).group_by(Job.parent_id)
    found = {parent: (int(step), int(total)) for parent, step, total in session.execute(counts)}
    woken = 0
    for job_id in ids:
        step, total = found.get(job_id, (0, 0))
        values: dict[str, Any] = {"progress": {"step": step, "total": total, "unit": "job"}}
        if step == total:
            values["next_dispatch_at"] = func.now()
            woken += 1
        session.execute(
            update(Job)
            .where(Job.id == job_id, Job.status == "queued")
            .values(**values)
            .execution_options(synchronize_session=False)
        )
    return woken


def cancel_abandoned(session: Session, *, limit: int = 100) -> int:
    """Cancel parts that go on although their job has ended without them; how many."""
    parent = aliased(Job)
    query = (
        select(Job.id)
        .join(parent, parent.id == Job.parent_id)
        .where(Job.status.in_(("queued", "running")), parent.status.in_(TERMINAL_STATUSES))
        .limit(limit)
        .with_for_update(of=Job, skip_locked=True)
    )
    ids = session.scalars(query).all()
    for job_id in ids:
        cancel(session, job_id)
    return len(ids)
