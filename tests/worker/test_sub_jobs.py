"""A job of sub-jobs through supervisors and their processes; the library does the same alone."""

import hashlib

import pytest

from mr_core.datasets.dataset import ImageDataset
from mr_core.errors import SpecError
from mr_core.run_job import run
from service.dispatch import dispatch
from service.models import Job
from tests.worker.toy import ToyParentSpec

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(settings):
    """No lease runs out here, however busy the machine: nobody would take the job up again."""
    return settings.model_copy(update={"lease_s": 60})


def digest(steps):
    value = hashlib.sha256(b"0").digest()
    for _ in range(steps):
        value = hashlib.sha256(value).digest()
    return value.hex()


def drive(bench, job_id):
    """Run whatever is due until the job has ended; how many attempts that took."""
    n = 0
    while bench.job(job_id).status not in ("succeeded", "failed", "cancelled"):
        dispatch(bench.database, lambda one, queue: None)
        with bench.database.session() as session:
            due = session.query(Job.id).filter(Job.status == "queued", Job.next_dispatch_at.is_not(None)).all()
        assert due, "nobody is due, and the job has not ended"
        for (one,) in due:
            bench.run(one)
            n += 1
    return n


def test_two_rounds_of_parts_one_of_which_fails(bench, tmp_path):
    """Two parts, then one that reads their answers: three attempts at the job, between them those of the parts."""
    job_id = bench.submit(kind="toy_parent", parts=2, fails=1)
    assert drive(bench, job_id) == 3 + 2 + 1
    job = bench.job(job_id)
    assert job.status == "succeeded"
    assert [entry["outcome"] for entry in job.attempts] == ["waiting", "waiting", "succeeded"]
    error = {"code": SpecError.code, "detail": "cannot be", "param": "steps"}
    assert job.result == {"first-0": digest(1), "first-1": error, "last": digest(1)}
    alone = run(ToyParentSpec(dataset="tiny", parts=2, fails=1), ImageDataset.open(tmp_path / "tiny.pack.zip"))
    assert alone.result == job.result
