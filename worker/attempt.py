"""One attempt at one job: a process of its own, started by the supervisor with a request on standard input.

It stores its outcome itself, in one fenced transaction, so a kill at any moment leaves either all of it or none.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import event
from sqlalchemy.orm import Session

from mr_core.errors import JobCancelled
from service import attempts, datasets, sub_jobs
from service.attempts import Claim
from service.blobs import Blobs
from service.errors import DatabaseUnavailable, Fenced, TransientError
from service.logging import configure_logging
from service.session import Database
from service.settings import Settings
from worker.failures import Failure, failure_of
from worker.lifeline import Lifeline, die_with_parent, prefer_as_oom_victim
from worker.memory import peak_memory_bytes
from worker.observer import DatabaseObserver, Interrupted
from worker.sub_jobs import Suspended

STORED: Final = 0
"""Exit status: the outcome is in the database."""
FENCED: Final = 10
"""Exit status: the job belongs to somebody else now."""
NOT_STORED: Final = 11
"""Exit status: the database did not take the outcome in time."""

_RETRY_S = 1.0
_SHORTEST_IDLE_S = 2.0

T = TypeVar("T")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Attempt:
    """What an attempt works with."""

    claim: Claim
    settings: Settings
    database: Database
    blobs: Blobs
    lifeline: Lifeline
    device: str
    scratch: Path

    def run(self) -> int:
        """Do the job and store how it ended; the exit status."""
        observer = DatabaseObserver(self.database, self.blobs, self.claim, self.lifeline)
        try:
            store = self._work(observer)
            observer.flush()
            return self._store(store)
        except JobCancelled:
            return self._store(lambda session: attempts.finish_cancelled(session, self.claim))
        except Interrupted:
            return self._store(lambda session: attempts.release(session, self.claim))
        except Suspended as waiting:
            specs = waiting.specs
            return self._store(lambda session: sub_jobs.suspend(session, self.claim, specs))
        except Fenced as error:
            _log.warning("fenced", detail=error.detail)
            return FENCED
        except Exception as error:
            failure = failure_of(error)
            if failure.is_bug:
                _log.error("internal error", traceback=traceback.format_exc())
            return self._store(lambda session: self._fail(session, failure))

    def _work(self, observer: DatabaseObserver) -> Callable[[Session], object]:
        """Do the job; what stores its outcome. Only what the kind needs is imported."""
        if self.claim.kind == datasets.VALIDATE:
            from worker.validation import validate

            return validate(self.claim, self.database, self.blobs, observer=observer, scratch=self.scratch)
        from worker.execution import execute

        return execute(
            self.claim,
            self.database,
            self.blobs,
            observer=observer,
            device=self.device,
            scratch=self.scratch,
            settings=self.settings,
        )

    def _fail(self, session: Session, failure: Failure) -> None:
        attempts.finish_failed(session, self.claim, failure.code, failure.detail, param=failure.param)

    def _store(self, write: Callable[[Session], T]) -> int:
        """Commit the outcome, for as long as the lease may last.

        Where the connection broke during the commit, the outcome may be in already: the next try finds the job ended
        and is fenced off, so nothing is written twice.
        """
        give_up_at = time.monotonic() + self.claim.lease_s
        while True:
            try:
                with self.database.session() as session:
                    attempts.record_memory(session, self.claim, peak_memory_bytes())
                    write(session)
            except DatabaseUnavailable as error:
                if time.monotonic() > give_up_at:
                    _log.error("outcome not stored", error=error.detail)
                    return NOT_STORED
                time.sleep(_RETRY_S)
            else:
                self._release_files()
                return STORED

    def _release_files(self) -> None:
        """Delete what parts have left for this job, if it has ended; the sweeper does where this fails."""
        try:
            sub_jobs.release_files(self.database, self.blobs, self.claim.job_id)
        except TransientError as error:
            _log.warning("files of sub-jobs not released yet", error=error.detail)


def main() -> int:
    """Read the request, then run. The first thing done is to be killed with the parent."""
    stdin = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    request: dict[str, Any] = json.loads(stdin.readline())
    die_with_parent(request["parent_pid"])
    prefer_as_oom_victim()
    lifeline = Lifeline()
    lifeline.follow(stdin)
    settings = Settings(**request["settings"])
    configure_logging(settings)
    claim = Claim(**request["claim"])
    structlog.contextvars.bind_contextvars(job_id=claim.job_id, attempt=claim.attempt)
    database = Database(request["database_url"], pool_size=2)
    _end_idle_transactions(database, after_s=max(_SHORTEST_IDLE_S, claim.lease_s / 4))
    return Attempt(
        claim=claim,
        settings=settings,
        database=database,
        blobs=Blobs(settings.blob_store_url, database),
        lifeline=lifeline,
        device=request["device"],
        scratch=Path(request["scratch"]),
    ).run()


def _end_idle_transactions(database: Database, *, after_s: float) -> None:
    """Have the server let go of the job's row well within its lease when this process is stopped in a transaction."""

    @event.listens_for(database.engine, "connect")
    def limit(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = {round(after_s * 1000)}")
        connection.commit()


def run_and_exit() -> None:
    """`main` as the whole process: ends without tearing the interpreter down, which torch takes a second for."""
    try:
        status = main()
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run_and_exit()
