"""A whole worker as a process."""

import subprocess
import sys

import pytest

from service.queue import make_celery, publish
from tests.worker.conftest import TOY_ATTEMPT


@pytest.mark.integration
def test_its_log_tells_of_each_attempt(bench):
    """Celery does not set the level of everybody's logs to its own."""
    log = bench.tmp_path / "worker.log"
    command = [sys.executable, "-m", "tests.worker.toy_worker", bench.settings_json(log_format="json"), "cpu"]
    job_id = bench.submit()
    with log.open("wb") as file, subprocess.Popen([*command, *TOY_ATTEMPT], stderr=file) as worker:
        try:
            publish(make_celery(bench.settings), job_id, "cpu")
            bench.wait_for(job_id, "succeeded", timeout_s=60)
        finally:
            worker.terminate()
    told = log.read_text()
    assert '"event": "worker ready"' in told
    assert '"event": "attempt started"' in told
    assert '"event": "attempt ended"' in told
