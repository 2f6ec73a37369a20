"""Jobs that a job is made of. In the library they run one after another; the service hands them to its queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mr_core.errors import JobCancelled, ReprogrammingError
from mr_core.observer import Beating

if TYPE_CHECKING:
    from mr_core.jobs.base import JobSpec
    from mr_core.jobs.context import JobContext


@dataclass(frozen=True)
class SubJobEnd:
    """How a sub-job ended: with a result, or with an error of `code`, `detail` and perhaps `param`.

    `file` opens what it left for the job that it is a part of, to be read until the context ends; once.
    """

    status: str  # succeeded, failed or cancelled
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    file: Callable[[], AbstractContextManager[Path]] | None = None
    seconds: float = 0.0  # that it computed, however it ended


class SubJobs:
    """Runs them in this process, on the job's own dataset."""

    def run(self, specs: Mapping[str, JobSpec], context: JobContext) -> dict[str, SubJobEnd]:
        """How each ended, by its name.

        In the service the call may end the attempt: the job waits without a worker, and a later attempt comes here
        again and gets the answers. So what comes before the call has to be cheap or kept in a checkpoint, and names
        and specs have to be the same every time.
        """
        ends = {}
        for n, (name, spec) in enumerate(specs.items()):
            ends[name] = _run(spec, replace(context, observer=Beating(context.observer)))
            context.observer.progress(n + 1, len(specs), unit=spec.unit)
        return ends


def _run(spec: JobSpec, context: JobContext) -> SubJobEnd:
    begun = time.monotonic()
    try:
        outcome = spec.run(context)
        opens = None if outcome.file is None else partial(_opened_once, outcome.file)
        return SubJobEnd("succeeded", result=outcome.result, file=opens, seconds=time.monotonic() - begun)
    except JobCancelled:
        raise
    except ReprogrammingError as error:
        told = {"code": error.code, "detail": error.detail, "param": error.param}
        return SubJobEnd("failed", error=told, seconds=time.monotonic() - begun)


@contextmanager
def _opened_once(file: Path) -> Iterator[Path]:
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
