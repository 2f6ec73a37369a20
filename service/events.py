"""What happened to a job: ordered and gap-free, and the bell that says something new is there."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import psycopg
import structlog
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from service import outbox
from service.errors import NotFound
from service.models import Event, Job
from service.session import Database

EventType = Literal["status", "phase", "metrics", "message"]
Level = Literal["info", "warning", "error"]
NewEvent = tuple[EventType, Mapping[str, Any], Level]

EVENTS_CHANNEL: Final = "mr_events"
"""PostgreSQL channel; the payload is the id of a job that has new events."""
DISPATCH_CHANNEL: Final = "mr_dispatch"
"""PostgreSQL channel; the payload is a queue with a new job or a free worker."""
WEBHOOKS_CHANNEL: Final = "mr_webhooks"
"""PostgreSQL channel; the payload is the id of a job or a webhook of which there is something to deliver."""

_log = structlog.get_logger(__name__)


def append(session: Session, job_id: str, event_type: EventType, data: Mapping[str, Any], level: Level = "info") -> int:
    """Add one event; its number. The job's row hands the numbers out, so none is missing and none is double."""
    numbered = update(Job).where(Job.id == job_id).values(event_seq=Job.event_seq + 1).returning(Job.event_seq)
    seq = session.scalars(numbered).one_or_none()
    if seq is None:
        raise NotFound(f"there is no job {job_id}")
    write(session, job_id, seq, [(event_type, data, level)])
    return seq


def write(session: Session, job_id: str, last_seq: int, events: Sequence[NewEvent]) -> None:
    """Write events whose numbers, ending at `last_seq`, the job's row gave out in this transaction.

    Every change of a job's status passes here, so this is where webhooks hear of it.
    """
    if not events:
        return
    first = last_seq - len(events) + 1
    session.execute(
        insert(Event).values(at=func.clock_timestamp()),
        [
            {"job_id": job_id, "seq": first + n, "type": event_type, "level": level, "data": dict(data)}
            for n, (event_type, data, level) in enumerate(events)
        ],
    )
    notify(session, EVENTS_CHANNEL, job_id)
    for n, (event_type, data, _) in enumerate(events):
        if event_type == "status" and outbox.record(session, job_id, first + n, data):
            notify(session, WEBHOOKS_CHANNEL, job_id)


def list_events(
    session: Session,
    job_id: str,
    *,
    after: int = 0,
    limit: int = 1000,
    type: EventType | None = None,  # noqa: A002
) -> Sequence[Event]:
    """Events with a number above `after`, in order; of one type if it is given."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq).limit(limit)
    if type is not None:
        query = query.where(Event.type == type)
    return session.scalars(query).all()


def notify(session: Session, channel: str, payload: str) -> None:
    """Ring when this transaction commits."""
    session.execute(select(func.pg_notify(channel, payload)))


def wait_for_bell(bell: threading.Event, stop: threading.Event, until: float) -> None:
    """Until the bell, the time, or the stop; short waits, since two events cannot be waited for at once."""
    while not stop.is_set() and not bell.is_set() and (left := until - time.monotonic()) > 0:
        bell.wait(min(left, 0.25))


class Listener:
    """One connection and one thread that listen to a channel for any number of subscribers.

    A callback gets no argument and runs in the listener's thread, so it must be quick: `threading.Event.set`, or
    `lambda: loop.call_soon_threadsafe(event.set)`. After a lost connection everyone is called once, since something
    may have been missed.
    """

    def __init__(self, database: Database, channel: str) -> None:
        self._dsn = database.dsn
        self._channel = channel
        self._callbacks: defaultdict[str | None, list[Callable[[], object]]] = defaultdict(list)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=f"listen-{channel}", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close its connection; takes up to half a second."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    @contextmanager
    def subscribed(self, payload: str | None, callback: Callable[[], object]) -> Iterator[None]:
        """While the block runs, call back for each notification with this payload (None: with any)."""
        with self._lock:
            self._callbacks[payload].append(callback)
        try:
            yield
        finally:
            with self._lock:
                self._callbacks[payload].remove(callback)
                if not self._callbacks[payload]:
                    del self._callbacks[payload]

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True, connect_timeout=5) as connection:
                    connection.execute(f"LISTEN {self._channel}")
                    self._call(None, everyone=True)
                    while not self._stopping.is_set():
                        for notification in connection.notifies(timeout=0.5):
                            self._call(notification.payload)
            except psycopg.Error as error:
                _log.warning("listening interrupted", channel=self._channel, error=str(error).strip())
                self._stopping.wait(1)

    def _call(self, payload: str | None, *, everyone: bool = False) -> None:
        with self._lock:
            keys = list(self._callbacks) if everyone else {payload, None} & self._callbacks.keys()
            callbacks = [callback for key in keys for callback in self._callbacks[key]]
        for callback in callbacks:
            callback()
