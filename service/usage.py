"""What a tenant and its keys have used: requests by the day, jobs and computing from their rows."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any, Final

import structlog
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.errors import ServiceError
from service.jobs import INTERNAL_KINDS
from service.keys import Caller
from service.models import DailyUsage, EndedAttempt, Job
from service.session import Database

COUNTED: Final = ("requests", "uploads", "uploaded_bytes", "predictions", "predicted_images")

_FLUSH_S = 5.0
_log = structlog.get_logger(__name__)


class UsageMeter:
    """Counts in memory and adds to the rows of the day every few seconds, so that no request waits for a write.

    A process that is killed loses what it has not written: some seconds of counts. Computing is not counted here.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def count(self, caller: Caller, **counts: int) -> None:
        """Add to what the caller's key has used."""
        with self._lock:
            counted = self._counts[caller.tenant, caller.key_id]
            for name, n in counts.items():
                counted[name] += n

    def start(self) -> None:
        """Write every few seconds, from a thread."""
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, and no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Write now; where the database does not take it, the counts wait for the next time."""
        with self._lock:
            taken, self._counts = self._counts, defaultdict(lambda: defaultdict(int))
        try:
            with self._database.session() as session:
                for (tenant, key_id), counted in sorted(taken.items()):  # in one order: gateways do not lock crosswise
                    add(session, tenant, key_id, counted)
        except ServiceError as error:
            _log.warning("usage not written yet", error=error.detail)
            with self._lock:
                for who, counted in taken.items():
                    for name, n in counted.items():
                        self._counts[who][name] += n

    def _run(self) -> None:
        while not self._stopping.wait(_FLUSH_S):
            self.flush()


def add(session: Session, tenant: str, key_id: str, counts: Mapping[str, int]) -> None:
    """Add to the day's row of a key."""
    row = insert(DailyUsage).values(tenant=tenant, day=func.current_date(), key_id=key_id, **counts)
    sums = {name: getattr(DailyUsage, name) + getattr(row.excluded, name) for name in counts}
    session.execute(row.on_conflict_do_update(index_elements=["tenant", "day", "key_id"], set_=sums))


@dataclass
class Computed:
    """Attempts that have ended on one queue: their wall time, and the images passed through backbones if known."""

    attempts: int = 0
    seconds: float = 0.0
    images: int = 0

    def __add__(self, other: "Computed") -> "Computed":
        return Computed(self.attempts + other.attempts, self.seconds + other.seconds, self.images + other.images)


@dataclass
class Used:
    """What one key, or several together, have used."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    jobs: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    compute: dict[str, Computed] = field(default_factory=lambda: defaultdict(Computed))

    def add(self, other: "Used") -> None:
        """Take in what another has used."""
        for name, n in other.counts.items():
            self.counts[name] += n
        for kind, by_status in other.jobs.items():
            for status, n in by_status.items():
                self.jobs[kind][status] += n
        for queue, computed in other.compute.items():
            self.compute[queue] += computed


def used_by_key(
    session: Session, tenant: str, *, first: date, last: date, key_id: str | None = None
) -> dict[str | None, Used]:
    """What each key of the tenant (or one) used on the days `first` to `last` (UTC, both included).

    Jobs count on the day they were submitted, in their present status, unless they were deleted; attempts on the day
    they ended, whatever became of their job. The key None made jobs before keys were noted.
    """
    used: dict[str | None, Used] = defaultdict(Used)
    for key, *sums in session.execute(_daily(tenant, first, last, key_id)):
        used[key].counts = dict(zip(COUNTED, map(int, sums), strict=True))
    for key, kind, status, n in session.execute(_jobs(tenant, first, last, key_id)):
        used[key].jobs[kind][status] = n
    for key, queue, n, seconds, images in session.execute(_attempts(tenant, first, last, key_id)):
        used[key].compute[queue] = Computed(n, seconds, int(images))
    return used


def _daily(tenant: str, first: date, last: date, key_id: str | None) -> Any:
    sums = (func.sum(getattr(DailyUsage, name)) for name in COUNTED)
    query = select(DailyUsage.key_id, *sums).where(DailyUsage.tenant == tenant, DailyUsage.day.between(first, last))
    return _of_key(query, DailyUsage.key_id, key_id).group_by(DailyUsage.key_id)


def _jobs(tenant: str, first: date, last: date, key_id: str | None) -> Any:
    query = select(Job.key_id, Job.kind, Job.status, func.count()).where(
        Job.tenant == tenant, Job.kind.not_in(INTERNAL_KINDS), _is_within(Job.created_at, first, last)
    )
    return _of_key(query, Job.key_id, key_id).group_by(Job.key_id, Job.kind, Job.status)


def _attempts(tenant: str, first: date, last: date, key_id: str | None) -> Any:
    images = func.coalesce(func.sum(EndedAttempt.images), 0)
    query = select(EndedAttempt.key_id, EndedAttempt.queue, func.count(), func.sum(EndedAttempt.seconds), images).where(
        EndedAttempt.tenant == tenant, _is_within(EndedAttempt.ended_at, first, last)
    )
    return _of_key(query, EndedAttempt.key_id, key_id).group_by(EndedAttempt.key_id, EndedAttempt.queue)


def _of_key(query: Any, column: Any, key_id: str | None) -> Any:
    return query if key_id is None else query.where(column == key_id)


def _is_within(column: Any, first: date, last: date) -> ColumnElement[bool]:
    begin, end = datetime.combine(first, time.min, UTC), datetime.combine(last, time.max, UTC)
    within: ColumnElement[bool] = column.between(begin, end)
    return within
