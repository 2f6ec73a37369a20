"""Claims a job, runs its attempt in a process of its own, and answers for how it ends. Never imports torch."""

import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from service import attempts, datasets
from service.attempts import Claim
from service.errors import DatabaseUnavailable, Fenced
from service.session import Database
from service.settings import Settings
from worker.environment import choose_environment, process_variables
from worker.process import AttemptProcess
from worker.scratch import scratch_folder

ATTEMPT_COMMAND: Final = (sys.executable, "-m", "worker.attempt")

# An attempt's own exit statuses, see worker.attempt (which is not imported: it brings the science along).
_STORED, _FENCED, _NOT_STORED = 0, 10, 11
_LOOK_S = 1.0  # between two looks at the cancel flag
_CANCEL_S = 4.0  # for an attempt to end by itself before it is killed; a cancel is answered within 10 s in all
_DECODER_SIGNALS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGXCPU)

T = TypeVar("T")
Ending = Literal["exited", "cancelled", "fenced", "stalled", "stopped"]
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Supervisor:
    """Runs jobs one at a time. `is_stopping` tells that this worker has to give its job back; `stop_grace_s` is the
    time an attempt then has to reach its next checkpoint."""

    settings: Settings
    database: Database
    owner: str
    device: str
    is_stopping: Callable[[], bool] = lambda: False
    stop_grace_s: float = 10.0
    command: Sequence[str] = ATTEMPT_COMMAND

    def run(self, job_id: str) -> None:
        """One attempt at the job, if it is to be had. Safe to call twice: the claim decides."""
        if self.is_stopping():
            return
        environment = choose_environment(self.settings.threads)
        with self.database.session() as session:
            claim = attempts.claim(
                session, job_id, owner=self.owner, lease_s=self.settings.lease_s, environment=environment
            )
        if claim is None:
            _log.debug("not to be had", job_id=job_id)
            return
        with structlog.contextvars.bound_contextvars(job_id=job_id, attempt=claim.attempt):
            self._attempt(claim)

    def _attempt(self, claim: Claim) -> None:
        started = time.monotonic()
        _log.info(
            "attempt started",
            kind=claim.kind,
            spec_sha256=_digest(claim.spec),
            device=self.device,
            environment=claim.environment,
            batch_divisor=claim.batch_divisor,
            versions=_versions(),
        )
        with scratch_folder(scratch_root(self.settings), f"{claim.job_id}-{claim.fence}") as scratch:
            process = AttemptProcess(
                self._request(claim, scratch),
                variables=process_variables(claim.environment) | {"TMPDIR": str(scratch)},
                command=self.command,
            )
            try:
                ending = self._watch(claim, process)
            finally:
                process.kill()
        outcome = self._settle(claim, ending, process)
        _log.info(
            "attempt ended",
            outcome=outcome,
            exit_status=process.exit_status,
            duration_s=round(time.monotonic() - started, 3),
        )

    def _request(self, claim: Claim, scratch: Path) -> dict[str, Any]:
        return {
            "claim": asdict(claim),
            "settings": self.settings.model_dump(mode="json", exclude={"predictor_token"}),
            "database_url": self.database.dsn,
            "device": self.device,
            "scratch": str(scratch),
        }

    def _watch(self, claim: Claim, process: AttemptProcess) -> Ending:
        """Return when the process has ended or has to be killed."""
        renewed_at = time.monotonic()  # a little late at first: the claim began the lease
        kill_at: float | None = None
        ending: Ending = "exited"
        while not process.wait(_LOOK_S):
            now = time.monotonic()
            if kill_at is not None and now > kill_at:
                return ending
            try:
                is_cancelling, is_stalled = self._look(claim)
                if is_stalled:
                    return "stalled"
                if is_cancelling and ending != "cancelled":
                    process.tell("cancel")
                    ending, kill_at = "cancelled", now + _CANCEL_S
                if now - renewed_at > self.settings.heartbeat_s:
                    self._in_transaction(lambda session: _renew(session, claim))
                    renewed_at = now
            except Fenced:
                return "exited" if process.wait(_LOOK_S) else "fenced"  # it may just have finished
            except DatabaseUnavailable as error:
                _log.warning("the database does not answer", error=error.detail)
                if now - renewed_at > claim.lease_s:
                    return "fenced"
            if ending == "exited" and self.is_stopping():
                process.tell("stop")
                ending, kill_at = "stopped", now + self.stop_grace_s
        return "exited"

    def _look(self, claim: Claim) -> tuple[bool, bool]:
        """Whether the job is to be cancelled, and whether it is stalled; waits for no lock."""
        with self.database.session() as session:
            is_cancelling = attempts.is_cancelling(session, claim)
            phase, silent_s = attempts.stalled_s(session, claim)
        return is_cancelling, silent_s > self.settings.progress_deadline(phase)

    def _settle(self, claim: Claim, ending: Ending, process: AttemptProcess) -> str:
        """Write how the attempt ended where it could not do so itself; the outcome, for the log."""
        settle = self._settlement(claim, ending, process)
        if settle is None:
            return "fenced" if ending == "fenced" or process.exit_status == _FENCED else "stored"
        outcome, write = settle
        try:
            self._in_transaction(write)
        except Fenced:
            return "fenced"
        except DatabaseUnavailable as error:
            _log.error("left to the sweeper", outcome=outcome, error=error.detail)
        return outcome

    def _settlement(
        self, claim: Claim, ending: Ending, process: AttemptProcess
    ) -> tuple[str, Callable[[Session], object]] | None:
        status = process.exit_status
        if ending == "fenced" or (ending == "exited" and status in (_STORED, _FENCED)):
            return None
        if ending == "cancelled":
            return "cancelled", lambda session: attempts.finish_cancelled(session, claim)
        if ending == "stopped":
            return "interrupted", lambda session: attempts.release(session, claim)
        code, detail = _failure(claim, ending, process)
        return code, lambda session: attempts.finish_failed(session, claim, code, detail)

    def _in_transaction(self, work: Callable[[Session], T]) -> T:
        with self.database.session() as session:
            return work(session)


def _renew(session: Session, claim: Claim) -> None:
    """Renew the lease, or give up soon: an attempt stopped in the middle of a write must not stop its supervisor."""
    session.execute(text("SET LOCAL lock_timeout = '1s'"))
    attempts.heartbeat(session, claim)


def scratch_root(settings: Settings) -> Path:
    """Where the scratch folders of attempts are."""
    return settings.data_dir / "scratch"


def _failure(claim: Claim, ending: Ending, process: AttemptProcess) -> tuple[str, str]:
    status = process.exit_status
    if ending == "stalled":
        return "progress_stalled", "the attempt made no progress within the deadline of its phase"
    if process.out_of_memory:
        return "worker_oom_killed", "the attempt was killed for memory"
    if status == _NOT_STORED:
        return DatabaseUnavailable.code, "the database did not take the outcome in time"
    if claim.kind == datasets.VALIDATE and -status in _DECODER_SIGNALS:
        return "invalid_dataset", f"decoding a file of the archive ended with {signal.Signals(-status).name}"
    if status < 0:
        return "worker_lost", f"the attempt was killed by {signal.Signals(-status).name}"
    return "internal_error", f"the attempt ended with status {status}; its traceback is in the worker's log"


def _digest(spec: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("mr-service", "torch", "timm", "open_clip_torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
