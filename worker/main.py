"""A worker: one queue, one device, one job at a time. `mr worker --queue cpu --device cpu` starts it."""

import mmap
import os
from collections.abc import Sequence
from typing import Any, Final, Literal

import structlog
from celery import signals

from service.ids import new_id
from service.logging import configure_logging
from service.queue import Queue, make_celery
from service.session import Database, open_database
from service.settings import Settings
from worker.heartbeat import Heartbeat
from worker.scratch import remove_leftovers
from worker.supervisor import ATTEMPT_COMMAND, Supervisor, scratch_root
from worker.tasks import register_tasks

Device = Literal["cpu", "cuda"]
EXIT_DEAF: Final = 1

_log = structlog.get_logger(__name__)


def run_worker(
    settings: Settings, *, queue: Queue, device: Device = "cpu", command: Sequence[str] = ATTEMPT_COMMAND
) -> int:
    """Serve the queue until SIGTERM or SIGINT, then give the job under way back; the exit status."""
    configure_logging(settings)
    worker_id = new_id("wk")
    structlog.contextvars.bind_contextvars(worker=worker_id)
    database = open_database(settings)
    database.wait_ready()

    def remove_scratch(**_: Any) -> None:
        for name in remove_leftovers(scratch_root(settings)):
            _log.warning("removed the scratch folder of a killed attempt", folder=name)

    remove_scratch()
    stop_flag = _StopFlag()
    supervisor = Supervisor(
        settings=settings,
        # Its own, still without a connection: connections must not be shared across the fork.
        database=Database(database.dsn, pool_size=2),
        owner=worker_id,
        device=device,
        is_stopping=stop_flag.is_raised,
        command=command,
    )
    celery = make_celery(settings)
    celery.conf.worker_pool_start_method = "fork"
    register_tasks(celery, supervisor)
    heartbeat = Heartbeat(
        database,
        worker_id=worker_id,
        queue=queue,
        device=device,
        interval_s=settings.heartbeat_s,
        on_deaf=lambda: os._exit(EXIT_DEAF),
    )

    # Threads start after the pool has forked. Receivers are weak references: these live until `start` returns.
    def when_ready(**_: Any) -> None:
        heartbeat.start()
        _log.info("worker ready", queue=queue, device=device)

    def when_stopping(**_: Any) -> None:
        stop_flag.raise_()

    def keep_logging(**_: Any) -> None:
        """Without a receiver Celery sets the root logger to its own level, and no attempt is seen to start or end."""

    signals.setup_logging.connect(keep_logging)
    signals.worker_ready.connect(when_ready)
    signals.worker_process_init.connect(remove_scratch)  # in a child that takes the place of a killed one
    signals.worker_shutting_down.connect(when_stopping)
    consumer = celery.Worker(
        queues=[queue],
        hostname=f"{worker_id}@%h",
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    try:
        consumer.start()
    finally:
        heartbeat.stop()
        database.dispose()
    return int(consumer.exitcode or 0)


class _StopFlag:
    """A byte of memory shared with the forked child, since a signal to this process does not reach it."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def raise_(self) -> None:
        self._byte[0] = 1

    def is_raised(self) -> bool:
        return self._byte[0] == 1
