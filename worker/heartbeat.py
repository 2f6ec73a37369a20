"""What a worker's main process does beside consuming: shows that it lives, and ends itself when it has gone deaf."""

import os
import platform
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from mr_core import __version__
from service import attempts, workers
from service.errors import DatabaseUnavailable
from service.models import Job
from service.queue import Queue
from service.session import Database
from worker.environment import available_cores

DEAF_S: Final = 60
"""An idle worker that does not hear of a published job for this long has lost its broker without knowing."""

_log = structlog.get_logger(__name__)


class Heartbeat:
    """A thread that renews the worker's row and calls `on_deaf` once the worker does not hear its queue any more."""

    def __init__(
        self,
        database: Database,
        *,
        worker_id: str,
        queue: Queue,
        device: str,
        interval_s: float,
        on_deaf: Callable[[], None],
        deaf_s: float = DEAF_S,
    ) -> None:
        self._database = database
        self._worker_id = worker_id
        self._queue = queue
        self._device = device
        self._interval_s = interval_s
        self._on_deaf = on_deaf
        self._deaf_s = deaf_s
        self._waiting_since: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; the row is there when this returns, if the database answers."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """End, and take the row away."""
        self._stopping.set()
        self._thread.join(timeout=10)
        try:
            with self._database.session() as session:
                workers.leave(session, self._worker_id)
        except DatabaseUnavailable:
            _log.warning("the worker's row stays until it is stale")

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self._beat()

    def _beat(self) -> None:
        try:
            with self._database.session() as session:
                workers.beat(session, self._worker_id, queue=self._queue, device=self._device, details=_details())
                unheard = self._unheard(session)
        except DatabaseUnavailable as error:
            _log.warning("no heartbeat", error=error.detail)
            self._waiting_since.clear()
            return
        now = time.monotonic()
        self._waiting_since = {job_id: self._waiting_since.get(job_id, now) for job_id in unheard}
        if any(now - since > self._deaf_s for since in self._waiting_since.values()):
            _log.error("published jobs wait and this idle worker does not hear of them", jobs=sorted(unheard))
            self._on_deaf()

    def _unheard(self, session: Session) -> set[str]:
        """Published jobs of the queue that nobody has claimed while this worker has nothing to do."""
        at_work = exists().where(Job.lease_owner == self._worker_id, Job.status.in_(("running", "cancelling")))
        if session.scalar(select(at_work)):
            return set()
        return set(attempts.unclaimed(session, self._queue))


def _details() -> dict[str, str | int]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "cores": available_cores(),
        "machine": platform.machine(),
        "version": __version__,
    }
