"""A whole Celery worker that knows the toy kind: `toy_worker.py SETTINGS QUEUE ATTEMPT...`."""

import sys

from service.settings import Settings
from worker.main import run_worker

if __name__ == "__main__":
    settings, queue, *command = sys.argv[1:]
    sys.exit(run_worker(Settings.model_validate_json(settings), queue=queue, command=command))
