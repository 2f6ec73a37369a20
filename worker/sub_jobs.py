"""Sub-jobs through the service's queue: the attempt ends where it would have to wait."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from mr_core.sub_jobs import SubJobEnd, SubJobs
from service import sub_jobs
from service.attempts import Claim
from service.blobs import Blobs
from service.models import Job
from service.session import Database

if TYPE_CHECKING:
    from mr_core.jobs.base import JobSpec
    from mr_core.jobs.context import JobContext  # brings torch, which not every attempt needs


class Suspended(BaseException):
    """The job has to wait for these parts. Not an Exception: no run may catch it by mistake."""

    def __init__(self, specs: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(f"waits for {len(specs)} sub-jobs")
        self.specs = specs


class QueuedSubJobs(SubJobs):
    """Those of a claimed job."""

    def __init__(self, database: Database, blobs: Blobs, claim: Claim) -> None:
        self._database = database
        self._blobs = blobs
        self._claim = claim

    def run(self, specs: Mapping[str, JobSpec], context: JobContext) -> dict[str, SubJobEnd]:
        with self._database.session() as session:
            rows = sub_jobs.ended(session, self._claim.job_id)
            files = sub_jobs.files(session, self._claim.job_id)
            seconds = sub_jobs.seconds(session, [row.id for row in rows.values()])
            ends = {
                name: self._end(rows[name], files.get(name), seconds.get(rows[name].id, 0.0))
                for name in specs
                if name in rows
            }
        if len(ends) < len(specs):
            raise Suspended({name: spec.model_dump(mode="json") for name, spec in specs.items()})
        return ends

    def _end(self, row: Job, file: str | None, seconds: float) -> SubJobEnd:
        opens = None if file is None else partial(self._blobs.local_path, file)
        return SubJobEnd(row.status, row.result, row.error, opens, seconds)
