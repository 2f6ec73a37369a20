"""The one Celery task: a message rings with a job's id, the supervisor does the rest."""

import structlog
from celery import Celery

from service.errors import DatabaseUnavailable
from service.queue import RUN_JOB
from worker.supervisor import Supervisor

_log = structlog.get_logger(__name__)


def register_tasks(celery: Celery, supervisor: Supervisor) -> None:
    """Have the app's workers run jobs under this supervisor."""

    @celery.task(name=RUN_JOB, ignore_result=True)  # type: ignore[untyped-decorator]
    def run_job(job_id: str) -> None:
        try:
            supervisor.run(job_id)
        except DatabaseUnavailable as error:
            _log.warning("not started: the sweeper will ring again", job_id=job_id, error=error.detail)
