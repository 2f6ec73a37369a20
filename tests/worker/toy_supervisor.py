"""One supervisor as a process of its own: `toy_supervisor.py SETTINGS DATABASE_URL JOB_ID`."""

import sys

from service.session import Database
from service.settings import Settings
from worker.supervisor import Supervisor

if __name__ == "__main__":
    settings, url, job_id, *command = sys.argv[1:]
    supervisor = Supervisor(
        settings=Settings.model_validate_json(settings),
        database=Database(url),
        owner="wk_process",
        device="cpu",
        command=command,
    )
    supervisor.run(job_id)
