"""Which workers are alive: each beats into its own row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.models import WorkerHeartbeat

if TYPE_CHECKING:
    from service.queue import Queue  # Celery, which the gateway starts without

ALIVE_S: Final = 60
"""A worker that has not beaten for this long counts as gone."""


def beat(session: Session, worker_id: str, *, queue: Queue, device: str, details: Mapping[str, Any]) -> None:
    """The worker is alive now."""
    values = {"queue": queue, "device": device, "details": dict(details), "heartbeat_at": func.clock_timestamp()}
    row = insert(WorkerHeartbeat).values(id=worker_id, **values)
    session.execute(row.on_conflict_do_update(index_elements=[WorkerHeartbeat.id], set_=values))


def leave(session: Session, worker_id: str) -> None:
    """The worker ends as planned."""
    session.execute(delete(WorkerHeartbeat).where(WorkerHeartbeat.id == worker_id))


def alive(session: Session, queue: Queue | None = None) -> Sequence[WorkerHeartbeat]:
    """Workers with a recent beat, of one queue if given."""
    query = select(WorkerHeartbeat).where(WorkerHeartbeat.heartbeat_at > _limit(ALIVE_S)).order_by(WorkerHeartbeat.id)
    return session.scalars(query if queue is None else query.filter_by(queue=queue)).all()


def is_served(session: Session, queue: Queue) -> bool:
    """Whether a worker that serves this queue is alive."""
    return bool(alive(session, queue))


def choose_queue(session: Session, device: str, *, precision: str = "float32") -> Queue:
    """Where a job goes: `auto` is the accelerator if a worker there is alive, but for bfloat16, which is the CPU's."""
    if device == "auto":
        return "gpu" if precision == "float32" and is_served(session, "gpu") else "cpu"
    return "gpu" if device == "gpu" else "cpu"


def forget_gone(session: Session, *, older_than_s: float = 3600) -> int:
    """Drop the rows of workers that have been gone for long; how many."""
    gone = (
        delete(WorkerHeartbeat).where(WorkerHeartbeat.heartbeat_at < _limit(older_than_s)).returning(WorkerHeartbeat.id)
    )
    return len(session.scalars(gone).all())


def _limit(seconds: float) -> Any:
    return func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
