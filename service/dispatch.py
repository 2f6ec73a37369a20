"""Which queued jobs to ring for next. The broker's queue stays short; order and fairness are decided here.

Publishing is repeated with back-off for as long as nobody claims, so a message that the broker lost, doubled or never
took costs time and nothing else.
"""

from collections.abc import Callable
from datetime import datetime

import structlog
from sqlalchemy import ColumnElement, Float, cast, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from service import sub_jobs, workers
from service.errors import BrokerUnavailable
from service.models import Job
from service.queue import QUEUES, Queue
from service.session import Database

Publish = Callable[[str, str], None]
"""Takes a job's id and a queue; raises BrokerUnavailable."""

_FIRST_BACK_OFF_S = 2.0
_LONGEST_BACK_OFF_S = 60.0

_log = structlog.get_logger(__name__)


def dispatch(database: Database, publish: Publish) -> int:
    """Ring for the jobs that are next in every queue; for how many."""
    published = 0
    with database.session() as session:
        sub_jobs.wake(session)
    for queue in QUEUES:
        with database.session() as session:
            job_ids = _take(session, queue)
        for n, job_id in enumerate(job_ids):
            try:
                publish(job_id, queue)
            except BrokerUnavailable as error:
                # Not the other queues either: each try may take seconds.
                _log.warning("broker unavailable, jobs wait", queue=queue, waiting=len(job_ids) - n, error=error.detail)
                with database.session() as session:
                    _give_back(session, job_ids[n:])
                return published
            published += 1
    return published


def _take(session: Session, queue: Queue) -> list[str]:
    """Mark the next jobs as published; they come again after their back-off unless they are claimed."""
    slots = max(1, len(workers.alive(session, queue)))
    busy = _count(session, queue, Job.status.in_(("running", "cancelling")))
    due = [Job.next_dispatch_at <= func.now()]
    believed_until: ColumnElement[datetime] = func.now()
    if busy >= slots:
        # Nobody is free to claim, so most messages are still there: ringing again would pile them up, and ringing for
        # others would put these before all that come later, however urgent. One that was lost must not wait for an
        # idle moment, though, which newer jobs may never leave.
        believed_until = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, _LONGEST_BACK_OFF_S)
        due.append(or_(Job.dispatch_count == 0, Job.next_dispatch_at < believed_until))
    rung = _count(session, queue, Job.status == "queued", Job.dispatch_count > 0, Job.next_dispatch_at > believed_until)
    room = 2 * slots - rung
    if room <= 0:
        return []
    other = aliased(Job)
    of_tenant = (
        select(func.count())
        .where(other.tenant == Job.tenant, other.queue == queue, other.status.in_(("running", "cancelling")))
        .scalar_subquery()
    )
    turn = func.row_number().over(partition_by=Job.tenant, order_by=(Job.priority.desc(), Job.created_at, Job.id))
    ranked = (
        select(Job.id, Job.priority, Job.created_at, (turn + of_tenant).label("turn"))
        .where(Job.queue == queue, Job.status == "queued", *due)
        .subquery()
    )
    order = (ranked.c.priority.desc(), ranked.c.turn, ranked.c.created_at, ranked.c.id)
    first = session.scalars(select(ranked.c.id).order_by(*order).limit(room)).all()
    # Another sweeper may hold some of these rows, or have taken them a moment ago.
    locked = select(Job.id).where(Job.id.in_(first), Job.status == "queued", *due).with_for_update(skip_locked=True)
    mine = set(session.scalars(locked).all())
    back_off = func.least(_LONGEST_BACK_OFF_S, _FIRST_BACK_OFF_S * func.power(2, func.least(Job.dispatch_count, 10)))
    session.execute(
        update(Job)
        .where(Job.id.in_(mine))
        .values(
            dispatch_count=Job.dispatch_count + 1,
            next_dispatch_at=func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, cast(back_off, Float)),
        )
        .execution_options(synchronize_session=False)
    )
    return [job_id for job_id in first if job_id in mine]


def _give_back(session: Session, job_ids: list[str]) -> None:
    """These were not published after all: they are due again in a moment."""
    soon = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, _FIRST_BACK_OFF_S)
    session.execute(
        update(Job)
        .where(Job.id.in_(job_ids), Job.status == "queued", Job.dispatch_count > 0)
        .values(dispatch_count=Job.dispatch_count - 1, next_dispatch_at=soon)
        .execution_options(synchronize_session=False)
    )


def _count(session: Session, queue: Queue, *conditions: object) -> int:
    query = select(func.count()).select_from(Job).where(Job.queue == queue, *conditions)  # type: ignore[arg-type]
    return session.scalars(query).one()
