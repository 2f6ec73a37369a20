"""A job as its worker sees it: claim, renew, write, finish.

Each write is a compare-and-set on (id, fence, status, lease), by the database's clock, that locks the job's row until
the transaction ends. Where it finds no row it raises Fenced: another attempt, or the sweeper, has taken the job over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Float,
    Text,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from mr_core.errors import JobCancelled
from service import datasets, ended_attempts, events
from service.errors import OUT_OF_MEMORY, RETRYABLE, Fenced
from service.models import Job, StoredCheckpoint

_ACTIVE = ("running", "cancelling")


@dataclass(frozen=True)
class Claim:
    """The right to work on a job, for as long as the lease is renewed. JSON through `dataclasses.asdict`."""

    job_id: str
    fence: int
    tenant: str
    kind: str
    spec: dict[str, Any]
    dataset_id: str | None
    queue: str
    owner: str
    attempt: int
    environment: dict[str, Any]
    batch_divisor: int  # 2 after an out-of-memory, else 1
    lease_s: float


def claim(session: Session, job_id: str, *, owner: str, lease_s: float, environment: Mapping[str, Any]) -> Claim | None:
    """Take a queued job, or None where it is not (or no longer) to be had; a doubled message ends here.

    `environment` (threads, kernel path) is stored at the first claim; later claims get the stored one.
    """
    entry = func.jsonb_build_array(
        func.jsonb_build_object(
            "number",
            func.jsonb_array_length(Job.attempts) + 1,
            "worker",
            owner,
            "started_at",
            func.to_jsonb(func.clock_timestamp()),
            "batch_divisor",
            _batch_divisor(),
        )
    )
    job = session.scalars(
        update(Job)
        .where(
            Job.id == job_id,
            Job.status == "queued",
            Job.next_dispatch_at.is_not(None),  # else it waits for its sub-jobs
            Job.attempt < Job.max_attempts,
            or_(Job.deadline_at.is_(None), Job.deadline_at > func.clock_timestamp()),
        )
        .values(
            status="running",
            phase=None,
            progress=None,
            fence=Job.fence + 1,
            attempt=Job.attempt + 1,
            attempts=Job.attempts.op("||")(entry),
            environment=func.coalesce(Job.environment, cast(dict(environment), JSONB)),
            lease_owner=owner,
            lease_until=_after(lease_s),
            heartbeat_at=func.clock_timestamp(),
            progress_at=func.clock_timestamp(),
            started_at=func.coalesce(Job.started_at, func.clock_timestamp()),
            next_dispatch_at=None,
            dispatch_count=0,
            event_seq=Job.event_seq + 1,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
    if job is None:
        return None
    data = {"status": "running", "attempt": len(job.attempts), "worker": owner}
    events.write(session, job_id, job.event_seq, [("status", data, "info")])
    return _as_claim(job, lease_s)


def resume(session: Session, job_id: str, fence: int, *, lease_s: float) -> Claim:
    """The claim that a supervisor holds, for its child process, which knows only id and fence."""
    query = select(Job).where(Job.id == job_id, Job.fence == fence, *_LEASED)
    job = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise Fenced(f"{job_id} is no longer held under fence {fence}")
    return _as_claim(job, lease_s)


def heartbeat(session: Session, claim: Claim) -> bool:
    """Renew the lease; whether the job is to be cancelled."""
    return (
        _write(session, claim, lease_until=_after(claim.lease_s), heartbeat_at=func.clock_timestamp()) == "cancelling"
    )


def is_cancelling(session: Session, claim: Claim) -> bool:
    """Whether the job is to be cancelled, without renewing the lease or locking the row."""
    query = select(Job.status).where(Job.id == claim.job_id, Job.fence == claim.fence, *_LEASED)
    status = session.scalars(query).one_or_none()
    if status is None:
        raise Fenced(f"{claim.job_id} is no longer held under fence {claim.fence}")
    return status == "cancelling"


def stalled_s(session: Session, claim: Claim) -> tuple[str | None, float]:
    """The phase, and the seconds since its last progress."""
    age = cast(func.extract("epoch", func.clock_timestamp() - Job.progress_at), Float)
    query = select(Job.phase, age).where(Job.id == claim.job_id, Job.fence == claim.fence, *_LEASED)
    row = session.execute(query).one_or_none()
    if row is None:
        raise Fenced(f"{claim.job_id} is no longer held under fence {claim.fence}")
    return row[0], row[1]


def record_phase(session: Session, claim: Claim, phase: str) -> bool:
    """A phase begins; whether the job is to be cancelled."""
    new: list[events.NewEvent] = [("phase", {"phase": phase}, "info")]
    return _write(session, claim, new, phase=phase, progress=None, progress_at=func.clock_timestamp()) == "cancelling"


def record_progress(session: Session, claim: Claim, progress: Mapping[str, Any]) -> bool:
    """Replace the progress (step, total, percent, eta_s, unit); whether the job is to be cancelled."""
    return _write(session, claim, progress=dict(progress), progress_at=func.clock_timestamp()) == "cancelling"


def record_events(session: Session, claim: Claim, new: Sequence[events.NewEvent]) -> bool:
    """Add events in order; whether the job is to be cancelled. Counts as progress."""
    return _write(session, claim, new, progress_at=func.clock_timestamp()) == "cancelling"


def save_checkpoint(
    session: Session, claim: Claim, name: str, *, step: int, state: Mapping[str, Any], sha256: str
) -> bool:
    """Make a stored blob the checkpoint of that name; whether the job is to be cancelled."""
    status = _write(session, claim, progress_at=func.clock_timestamp())
    values = {"step": step, "state": dict(state), "sha256": sha256, "created_at": func.clock_timestamp()}
    session.execute(
        insert(StoredCheckpoint)
        .values(job_id=claim.job_id, name=name, **values)
        .on_conflict_do_update(index_elements=["job_id", "name"], set_=values)
    )
    return status == "cancelling"


def load_checkpoint(session: Session, claim: Claim, name: str) -> StoredCheckpoint | None:
    """The checkpoint of that name that this or an earlier attempt kept."""
    return session.get(StoredCheckpoint, (claim.job_id, name))


def record_memory(session: Session, claim: Claim, peak_bytes: int) -> None:
    """Note in the attempt's entry how much memory its process held at most."""
    entry = cast(["-1", "peak_memory_bytes"], ARRAY(Text))
    _write(session, claim, attempts=func.jsonb_set(Job.attempts, entry, func.to_jsonb(cast(peak_bytes, BigInteger))))


def finish_succeeded(
    session: Session, claim: Claim, result: Mapping[str, Any], *, artifacts: Sequence[Any] = ()
) -> None:
    """End the job with its result; `artifacts` are further rows (StoredArtifact, StoredSpectrum, ...) of this commit.

    What else belongs to the result goes into the same transaction. JobCancelled where a cancel was faster.
    """
    ended = _end(session, claim, status="succeeded", outcome="succeeded", only=("running",), result=dict(result))
    if not ended:
        if is_cancelling(session, claim):
            raise JobCancelled(f"{claim.job_id} was cancelled before its result was written")
        raise Fenced(f"{claim.job_id} is no longer held under fence {claim.fence}")
    session.add_all(artifacts)
    session.flush()


def finish_failed(session: Session, claim: Claim, code: str, detail: str, *, param: str | None = None) -> str:
    """End the attempt with an error; the job's status then.

    Infrastructure codes queue the job again while attempts are left, an out-of-memory once (with half the batch). If
    a cancel was asked for, that is what the job ends with.
    """
    job = _hold(session, claim)
    if job.status == "cancelling":
        finish_cancelled(session, claim)
        return "cancelled"
    return settle_failure(session, job, code, detail, param=param)


def finish_cancelled(session: Session, claim: Claim) -> None:
    """The work has stopped as asked."""
    if not _end(session, claim, status="cancelled", outcome="cancelled", only=("cancelling",)):
        raise Fenced(f"{claim.job_id} is no longer being cancelled under fence {claim.fence}")


def release(session: Session, claim: Claim) -> str:
    """Give the job back because this worker has to stop; the attempt does not count. The job's status then."""
    job = _hold(session, claim)
    if job.status == "cancelling":
        finish_cancelled(session, claim)
        return "cancelled"
    _requeue(session, job, "interrupted", "the worker was told to stop", delay_s=0, counts=False)
    return "queued"


def wait(session: Session, claim: Claim, detail: str) -> Job | None:
    """End the attempt, which does not count, with nothing due; None where the job was to be cancelled, and is."""
    job = _hold(session, claim)
    if job.status == "cancelling":
        finish_cancelled(session, claim)
        return None
    _change(session, job, "queued", "waiting", "info", detail=detail, attempt=job.attempt - 1, dispatch_count=0)
    return job


def settle_failure(session: Session, job: Job, code: str, detail: str, *, param: str | None = None) -> str:
    """Queue a running (or queued) job again or end it as failed; the caller has locked its row. The status then."""
    ooms = sum(attempt.get("outcome") in OUT_OF_MEMORY for attempt in job.attempts)
    may_retry = code in RETRYABLE and job.attempt < job.max_attempts and not (code in OUT_OF_MEMORY and ooms)
    if may_retry and job.status == "running":
        _requeue(session, job, code, detail, delay_s=min(30.0, 0.5 * 2**job.attempt))
        return "queued"
    error = {"code": code, "detail": detail, "param": param}
    _change(session, job, "failed", code, "error", error=error, finished_at=func.clock_timestamp())
    if job.kind == datasets.VALIDATE and job.dataset_id is not None:
        datasets.set_invalid(session, job.dataset_id, code=code, detail=detail)
    return "failed"


def end_cancelled(session: Session, job: Job) -> None:
    """End a job whose worker did not answer a cancel; the caller has locked its row. The raised fence cuts it off."""
    _change(session, job, "cancelled", "cancelled", "info", finished_at=func.clock_timestamp())


def unclaimed(session: Session, queue: str) -> Sequence[str]:
    """Jobs that were published to the queue and that nobody has claimed yet; for the watchdog of an idle worker."""
    return session.scalars(
        select(Job.id).where(Job.status == "queued", Job.queue == queue, Job.dispatch_count > 0)
    ).all()


_LEASED = (Job.status.in_(_ACTIVE), Job.lease_until > func.clock_timestamp())


def _write(
    session: Session,
    claim: Claim,
    new: Sequence[events.NewEvent] = (),
    **values: Any,
) -> str:
    row = session.execute(
        update(Job)
        .where(Job.id == claim.job_id, Job.fence == claim.fence, *_LEASED)
        .values(event_seq=Job.event_seq + len(new), **values)
        .returning(Job.status, Job.event_seq)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        raise Fenced(f"{claim.job_id} is no longer held under fence {claim.fence}")
    events.write(session, claim.job_id, row.event_seq, new)
    return str(row.status)


def _hold(session: Session, claim: Claim) -> Job:
    query = select(Job).where(Job.id == claim.job_id, Job.fence == claim.fence, *_LEASED).with_for_update()
    job = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise Fenced(f"{claim.job_id} is no longer held under fence {claim.fence}")
    return job


def _end(session: Session, claim: Claim, *, status: str, outcome: str, only: tuple[str, ...], **values: Any) -> bool:
    query = select(Job).where(Job.id == claim.job_id, Job.fence == claim.fence, Job.status.in_(only), *_LEASED)
    job = session.scalars(query.with_for_update().execution_options(populate_existing=True)).one_or_none()
    if job is None:
        return False
    _change(session, job, status, outcome, "info", finished_at=func.clock_timestamp(), **values)
    return True


def _requeue(session: Session, job: Job, code: str, detail: str, *, delay_s: float, counts: bool = True) -> None:
    values = {
        "next_dispatch_at": _after(delay_s),
        "dispatch_count": 0,
        "attempt": job.attempt if counts else job.attempt - 1,
    }
    _change(session, job, "queued", code, "warning", code=code, detail=detail, **values)


def _change(session: Session, job: Job, status: str, outcome: str, level: events.Level, **values: Any) -> None:
    """Move a locked job out of its attempt: fence raised, lease gone, attempt closed, event written, free slot rung."""
    told: dict[str, Any] = {key: values.pop(key) for key in ("code", "detail") if key in values}
    told |= {key: values["error"][key] for key in ("code", "detail") if values.get("error")}
    values = {"next_dispatch_at": None, **values}
    attempts = [dict(attempt) for attempt in job.attempts]
    if attempts and job.status in _ACTIVE:
        ended_at = session.scalars(select(func.to_jsonb(func.clock_timestamp()))).one()
        attempts[-1] |= {"ended_at": ended_at, "outcome": outcome}
        ended_attempts.record(session, job, attempts[-1], values.get("result"))
    seq = session.scalars(
        update(Job)
        .where(Job.id == job.id, Job.fence == job.fence, Job.status == job.status)
        .values(
            status=status,
            fence=Job.fence + 1,
            lease_owner=None,
            lease_until=None,
            attempts=attempts,
            event_seq=Job.event_seq + 1,
            **values,
        )
        .returning(Job.event_seq)
        .execution_options(synchronize_session=False)
    ).one()
    events.write(session, job.id, seq, [("status", {"status": status, **told}, level)])
    events.notify(session, events.DISPATCH_CHANNEL, job.queue)
    session.expire(job)


def _batch_divisor() -> ColumnElement[int]:
    """2 where an earlier attempt ran out of memory; as SQL, so that the claim stays one statement."""
    tests = [Job.attempts.contains([{"outcome": code}]) for code in sorted(OUT_OF_MEMORY)]
    return case((or_(*tests), literal(2)), else_=literal(1))


def _after(seconds: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _as_claim(job: Job, lease_s: float) -> Claim:
    return Claim(
        job_id=job.id,
        fence=job.fence,
        tenant=job.tenant,
        kind=job.kind,
        spec=job.spec,
        dataset_id=job.dataset_id,
        queue=job.queue,
        owner=job.lease_owner or "",
        attempt=len(job.attempts),
        environment=job.environment or {},
        batch_divisor=job.attempts[-1].get("batch_divisor", 1) if job.attempts else 1,
        lease_s=lease_s,
    )
