"""Brings every job to an end that its worker did not: lost workers, stuck work, deadlines, cancels, lost messages.

Any number of sweepers may run at once. Each step locks the rows that it changes and passes over those that another
sweeper, or a worker that is just finishing, has locked.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from celery import Celery
from sqlalchemy import ColumnElement, and_, case, func, literal, select
from sqlalchemy.orm import Session

from service import attempts, datasets, studies, sub_jobs, uploads, workers
from service.blobs import Blobs
from service.deliveries import Deliverer, delete_old
from service.dispatch import dispatch
from service.errors import TransientError
from service.events import DISPATCH_CHANNEL, Listener, wait_for_bell
from service.jobs import cancel
from service.models import Job
from service.orphans import delete_orphans
from service.queue import publish
from service.session import Database
from service.settings import Settings

_BATCH: Final = 100
_COLLECT_EVERY_S: Final = 600.0

_log = structlog.get_logger(__name__)


class Sweeper:
    """One sweeper; `publish_job` stands for the broker."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        celery: Celery,
        blobs: Blobs,
        *,
        publish_job: Callable[[str, str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._publish = publish_job or (lambda job_id, queue: publish(celery, job_id, queue))
        self._deliverer = Deliverer(settings, database)
        self._collected_at = -_COLLECT_EVERY_S

    def run(self, stop: threading.Event) -> None:
        """Sweep every few seconds, and dispatch at once when a job arrives or ends, until told to stop.

        Webhooks are delivered from threads beside this one.
        """
        delivering = threading.Thread(target=self._deliverer.run, args=(stop,), name="webhooks")
        delivering.start()
        bell = threading.Event()
        listener = Listener(self._database, DISPATCH_CHANNEL)
        with listener.subscribed(None, bell.set):
            listener.start()
            sweep_at = 0.0
            while not stop.is_set():
                is_round = time.monotonic() >= sweep_at
                if is_round:
                    sweep_at = time.monotonic() + self._settings.sweep_s
                try:
                    if is_round:
                        self.run_once()
                    else:
                        dispatch(self._database, self._publish)
                except TransientError as error:
                    _log.warning("sweep interrupted", code=error.code, error=error.detail)
                except Exception:
                    _log.exception("sweep failed")  # the next round is more useful than a dead sweeper
                wait_for_bell(bell, stop, sweep_at)
                bell.clear()
            listener.stop()
        delivering.join()

    def run_once(self) -> None:
        """Every step once."""
        for step in (
            self._end_unanswered_cancels,
            self._settle_lost,
            self._settle_overdue,
            self._settle_stalled,
            self._cancel_abandoned,
        ):
            while step() == _BATCH:
                pass
        dispatch(self._database, self._publish)
        with self._database.session() as session:
            workers.forget_gone(session)
        if time.monotonic() - self._collected_at >= _COLLECT_EVERY_S:
            self._collected_at = time.monotonic()
            self.collect_garbage()

    def collect_garbage(self) -> None:
        """Delete expired uploads, what parts left for ended jobs, what nothing refers to, and old records."""
        uploads.delete_expired(self._database, self._blobs)
        sub_jobs.release_files(self._database, self._blobs)
        age_s = self._settings.orphan_blob_s
        removed = delete_orphans(self._database, self._blobs, older_than_s=age_s) + self._blobs.remove_strays(age_s)
        if removed:
            _log.info("blobs deleted", count=removed)
        with self._database.session() as session:
            datasets.delete_forgotten_validations(session)
            studies.forget_gone(session)
        delete_old(self._database, older_than_s=self._settings.webhook_retention_s)

    def _end_unanswered_cancels(self) -> int:
        """Cancels that found a queued job, a dead worker, or one that does not answer in time."""
        with self._database.session() as session:
            too_late = Job.cancel_requested_at < _ago(self._settings.cancel_grace_s)
            expired = Job.lease_until < func.clock_timestamp()
            jobs = _lock(session, Job.status == "cancelling", too_late | expired)
            for job in jobs:
                _log.info("cancel enforced", job_id=job.id)
                attempts.end_cancelled(session, job)
            flagged = _lock(session, Job.status == "queued", Job.cancel_requested_at.is_not(None))
            for job in flagged:
                cancel(session, job.id)
            return max(len(jobs), len(flagged))

    def _settle_lost(self) -> int:
        """Jobs whose lease ran out, and queued ones that have no attempt left."""
        with self._database.session() as session:
            jobs = _lock(session, Job.status == "running", Job.lease_until < func.clock_timestamp())
            for job in jobs:
                detail = f"the worker {job.lease_owner} gave no sign of life for {self._settings.lease_s:g} s"
                _log.warning("worker lost", job_id=job.id, worker=job.lease_owner)
                attempts.settle_failure(session, job, "worker_lost", detail)
            spent = _lock(session, Job.status == "queued", Job.attempt >= Job.max_attempts)
            for job in spent:
                last = job.attempts[-1].get("outcome", "worker_lost") if job.attempts else "worker_lost"
                attempts.settle_failure(session, job, last, f"all {job.max_attempts} attempts are spent")
            return max(len(jobs), len(spent))

    def _settle_overdue(self) -> int:
        """Jobs past their deadline, begun or not."""
        with self._database.session() as session:
            jobs = _lock(session, Job.status.in_(("queued", "running")), Job.deadline_at < func.clock_timestamp())
            for job in jobs:
                attempts.settle_failure(session, job, "timeout", "the job did not end before its deadline")
            return len(jobs)

    def _settle_stalled(self) -> int:
        """Running jobs without progress; their supervisor kills them first unless it hangs as well."""
        grace_s = 2 * self._settings.lease_s
        limits = {phase: limit + grace_s for phase, limit in self._settings.progress_deadlines_s.items()}
        limit = literal(self._settings.progress_deadline_s + grace_s)
        allowed = case(limits, value=Job.phase, else_=limit) if limits else limit
        with self._database.session() as session:
            age = func.extract("epoch", func.clock_timestamp() - Job.progress_at)
            jobs = _lock(session, Job.status == "running", age > allowed)
            for job in jobs:
                detail = f"no progress in the phase {job.phase or 'of starting'}"
                attempts.settle_failure(session, job, "progress_stalled", detail)
            return len(jobs)

    def _cancel_abandoned(self) -> int:
        """Sub-jobs whose job has ended without them."""
        with self._database.session() as session:
            return sub_jobs.cancel_abandoned(session, limit=_BATCH)


def _lock(session: Session, *conditions: ColumnElement[bool]) -> Sequence[Job]:
    query = select(Job).where(and_(*conditions)).order_by(Job.id).limit(_BATCH).with_for_update(skip_locked=True)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def _ago(seconds: float) -> ColumnElement[object]:
    return func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
