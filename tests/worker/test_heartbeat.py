import threading

import pytest

from service import attempts, jobs, workers
from service.models import Job
from tests.worker.conftest import wait_until
from worker.heartbeat import Heartbeat


@pytest.fixture
def heartbeat(database):
    deaf = threading.Event()
    heart = Heartbeat(
        database, worker_id="wk_1", queue="cpu", device="cpu", interval_s=0.1, on_deaf=deaf.set, deaf_s=0.3
    )
    heart.deaf = deaf
    heart.start()
    yield heart
    heart.stop()


def submit(database, *, published):
    with database.session() as session:
        job = jobs.create_job(session, tenant="t", kind="toy", spec={}, queue="cpu")
        job.dispatch_count = int(published)
        return job.id


def row(database):
    with database.session() as session:
        return next(iter(workers.alive(session, "cpu")), None)


def test_the_row_is_there_from_the_start_renewed_and_gone_at_the_end(database, heartbeat):
    first = row(database)
    assert (first.id, first.device, first.details["cores"] > 0) == ("wk_1", "cpu", True)
    wait_until(lambda: row(database).heartbeat_at > first.heartbeat_at)
    heartbeat.stop()
    assert row(database) is None


def test_an_idle_worker_that_does_not_hear_of_a_published_job_is_deaf(database, heartbeat):
    submit(database, published=True)
    assert heartbeat.deaf.wait(10)


@pytest.mark.parametrize("case", ["unpublished", "at work"])
def test_a_worker_that_is_at_work_or_has_nothing_to_hear_is_not(database, heartbeat, case):
    if case == "at work":
        with database.session() as session:
            mine = jobs.create_job(session, tenant="t", kind="toy", spec={}, queue="cpu").id
            attempts.claim(session, mine, owner="wk_1", lease_s=60, environment={})
            assert session.get(Job, mine).status == "running"
    submit(database, published=case == "at work")
    assert not heartbeat.deaf.wait(1)
