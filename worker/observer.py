"""mr_core's observer as rows of the database: phases, progress, metrics, checkpoints; raises on cancellation."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import groupby
from typing import Any

import structlog
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from sqlalchemy.orm import Session

from mr_core.errors import JobCancelled
from mr_core.observer import Checkpoint, Level, Observer, Phase, Spent
from service import attempts
from service.attempts import Claim
from service.blobs import Blobs
from service.errors import DatabaseUnavailable, StorageUnavailable
from service.events import EventType
from service.orphans import delete_orphan
from service.session import Database
from worker.lifeline import Lifeline
from worker.progress import ProgressMeter

_WRITE_INTERVAL_S = 0.5
_SPENT = "spent"

_Row = tuple[EventType, Mapping[str, Any], Level]

_log = structlog.get_logger(__name__)


class Interrupted(BaseException):
    """The worker is stopping and the latest checkpoint is stored. Not an Exception: no run may catch it by mistake."""


class DatabaseObserver(Observer):
    """Writes under the attempt's fence, twice a second at most; Fenced ends the run when the lease is lost.

    While the database does not answer, events wait in memory and go out with the next write, in order:
    the supervisor decides when that has lasted too long.
    """

    def __init__(self, database: Database, blobs: Blobs, claim: Claim, lifeline: Lifeline) -> None:
        self._database = database
        self._blobs = blobs
        self._claim = claim
        self._lifeline = lifeline
        self._waiting: list[_Row] = []
        self._meter = ProgressMeter()
        self._progress: Mapping[str, Any] | None = None
        self._written_at = float("-inf")
        self._nothing: str | None = None  # digest of a checkpoint without arrays
        self._kept: dict[str, str] = {}  # digests of this attempt's checkpoints, by name

    def phase(self, phase: Phase) -> None:
        self._meter = ProgressMeter()
        self._progress = None
        self._waiting.append(("phase", {"phase": phase}, "info"))
        _log.info("phase", phase=phase)
        self._write(at_once=True)

    def progress(self, step: int, total: int, *, unit: str = "step") -> None:
        self._progress = self._meter.measure(step, total, unit=unit)
        self._write(at_once=step >= total)

    def beat(self) -> None:
        self._write()

    def metrics(self, values: Mapping[str, float]) -> None:
        self._waiting.append(("metrics", dict(values), "info"))
        self._write()

    def message(self, text: str, *, level: Level = "info") -> None:
        self._waiting.append(("message", {"text": text}, level))
        self._write()

    def save_checkpoint(self, name: str, checkpoint: Checkpoint) -> None:
        self._raise_if_cancelled()
        try:
            with self._blobs.writer() as writer:
                writer.write(save_arrays(dict(checkpoint.arrays)))
                stored = writer.commit()
            with self._database.session() as session:
                attempts.save_checkpoint(
                    session,
                    self._claim,
                    name,
                    step=checkpoint.step,
                    state=checkpoint.state,
                    sha256=stored.sha256,
                )
            # At once: a large adapter's checkpoints of ten minutes, until garbage is collected, can fill a disk.
            replaced = self._kept.get(name, stored.sha256)
            self._kept[name] = stored.sha256
            if replaced != stored.sha256:
                delete_orphan(self._database, self._blobs, replaced)
        except (DatabaseUnavailable, StorageUnavailable) as error:
            _log.warning("checkpoint not kept", name=name, step=checkpoint.step, error=error.detail)
            return
        self.flush()
        if self._lifeline.stopping.is_set():
            raise Interrupted

    def load_checkpoint(self, name: str) -> Checkpoint | None:
        with self._database.session() as session:
            stored = attempts.load_checkpoint(session, self._claim, name)
        if stored is None:
            return None
        with self._blobs.open(stored.sha256) as file:
            arrays = load_arrays(file.read())
        _log.info("resuming", name=name, step=stored.step)
        return Checkpoint(step=stored.step, state=stored.state, arrays=arrays)

    def record_spent(self, spent: Spent) -> None:
        """As a checkpoint without arrays. Unlike others it has to be kept: no request goes out that is not counted."""
        self._raise_if_cancelled()
        if self._nothing is None:
            with self._blobs.writer() as writer:
                writer.write(save_arrays({}))
                self._nothing = writer.commit().sha256
        with self._database.session() as session:
            attempts.save_checkpoint(
                session, self._claim, _SPENT, step=spent.calls, state=asdict(spent), sha256=self._nothing
            )

    def spent(self) -> Spent:
        with self._database.session() as session:
            stored = attempts.load_checkpoint(session, self._claim, _SPENT)
        return Spent() if stored is None else Spent(**stored.state)

    def flush(self) -> None:
        """Write what is waiting."""
        self._write(at_once=True)

    def _write(self, *, at_once: bool = False) -> None:
        self._raise_if_cancelled()
        now = time.monotonic()
        if not at_once and now - self._written_at < _WRITE_INTERVAL_S:
            return
        self._written_at = now
        try:
            with self._database.session() as session:
                is_cancelling = self._write_rows(session)
        except DatabaseUnavailable as error:
            _log.warning("progress not written yet", error=error.detail)
            return
        self._waiting.clear()
        if is_cancelling:
            self._lifeline.cancelled.set()
        self._raise_if_cancelled()

    def _write_rows(self, session: Session) -> bool:
        for is_phase, rows in groupby(self._waiting, key=lambda row: row[0] == "phase"):
            if is_phase:
                for _, data, _ in rows:
                    attempts.record_phase(session, self._claim, data["phase"])
            else:
                attempts.record_events(session, self._claim, list(rows))
        if self._progress is not None:
            return attempts.record_progress(session, self._claim, self._progress)
        return attempts.record_events(session, self._claim, ())

    def _raise_if_cancelled(self) -> None:
        if self._lifeline.cancelled.is_set():
            raise JobCancelled
