"""Jobs that a job is made of: it hands them to the queue, waits without a worker, and goes on when all have ended.

A job that waits is queued with nothing due (`next_dispatch_at` is null), so nobody rings for it or claims it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import delete, func, select, true, update
from sqlalchemy.orm import Session, aliased

from mr_core.job_spec import PART_KINDS, JobSpec
from service import attempts, workers
from service.attempts import Claim
from service.blobs import Blobs
from service.jobs import cancel, create_job
from service.models import TERMINAL_STATUSES, EndedAttempt, Job, StoredArtifact
from service.orphans import delete_orphan
from service.session import Database

MOST: Final = 1000
"""Sub-jobs of one job."""
FILE: Final = "for-its-job"
"""The artifact that a part leaves for its job, until that has ended."""


def ended(session: Session, parent_id: str) -> dict[str, Job]:
    """The job's parts that have ended, by name."""
    query = select(Job).where(Job.parent_id == parent_id, Job.status.in_(TERMINAL_STATUSES))
    return {job.part: job for job in session.scalars(query) if job.part is not None}


def files(session: Session, parent_id: str) -> dict[str, str]:
    """The SHA-256 of the files that the job's parts have left for it, by the part's name."""
    query = select(Job.part, StoredArtifact.sha256).join(StoredArtifact, StoredArtifact.job_id == Job.id)
    rows = session.execute(query.where(Job.parent_id == parent_id, StoredArtifact.name == FILE))
    return {part: sha256 for part, sha256 in rows if part is not None}


def seconds(session: Session, job_ids: Sequence[str]) -> dict[str, float]:
    """What all attempts at these jobs have taken together, by job."""
    query = select(EndedAttempt.job_id, func.sum(EndedAttempt.seconds)).where(EndedAttempt.job_id.in_(job_ids))
    return {job_id: float(total) for job_id, total in session.execute(query.group_by(EndedAttempt.job_id))}


def release_files(database: Database, blobs: Blobs, parent_id: str | None = None) -> int:
    """Delete what parts have left for jobs that have ended, or for one of them; how many files."""
    parent = aliased(Job)
    of_ended = (
        select(Job.id)
        .join(parent, parent.id == Job.parent_id)
        .where(parent.status.in_(TERMINAL_STATUSES), true() if parent_id is None else parent.id == parent_id)
    )
    left = delete(StoredArtifact).where(StoredArtifact.name == FILE, StoredArtifact.job_id.in_(of_ended))
    with database.session() as session:
        released = session.scalars(left.returning(StoredArtifact.sha256)).all()
    for sha256 in released:
        delete_orphan(database, blobs, sha256)
    return len(released)


def suspend(session: Session, claim: Claim, specs: Mapping[str, Mapping[str, Any]]) -> None:
    """Queue the parts that are not there yet, and have the job wait for all of them; a cancel asked for comes first.

    The parts compute as the job does: threads and instruction set are those of its first claim. Fenced like every write
    of an attempt. ValueError for more than a thousand parts.
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
                queue=workers.choose_queue(session, spec["device"], precision=spec.get("precision", "float32")),
                dataset_id=parent.dataset_id,
                max_attempts=parent.max_attempts,
                priority=parent.priority,
                key_id=parent.key_id,
                parent_id=parent.id,
                part=part,
                environment=parent.environment,
            )


def wake(session: Session) -> int:
    """Make due the jobs whose parts have all ended, and tell the others' progress; how many were woken."""
    waiting = select(Job.id).where(Job.status == "queued", Job.next_dispatch_at.is_(None))
    ids = session.scalars(waiting.with_for_update(skip_locked=True)).all()
    if not ids:
        return 0
    done = func.count().filter(Job.status.in_(TERMINAL_STATUSES))
    counts = select(Job.parent_id, done, func.count(), func.min(Job.kind)).where(Job.parent_id.in_(ids))
    found = {
        parent: (int(step), int(total), PART_KINDS.get(kind, JobSpec).unit)
        for parent, step, total, kind in session.execute(counts.group_by(Job.parent_id))
    }
    woken = 0
    for job_id in ids:
        step, total, unit = found.get(job_id, (0, 0, JobSpec.unit))
        values: dict[str, Any] = {"progress": {"step": step, "total": total, "unit": unit}}
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
