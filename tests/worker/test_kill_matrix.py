"""What SIGKILL and SIGSTOP do at each place, and the last moment: nothing is lost, nothing committed twice."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from sqlalchemy import text

from service.blobs import Blobs
from service.errors import JobFinished
from service.models import StoredAdapter
from service.queue import make_celery
from service.session import Database
from service.sweeper import Sweeper
from tests.worker.conftest import TENANT, TOY_ATTEMPT, wait_until
from tests.worker.processes import attempt_pids

pytestmark = pytest.mark.integration


@pytest.fixture
def undisturbed(bench):
    """SHA-256 of the adapter of the same job, left alone."""
    job = bench.run(bench.submit(seed=9, steps=30))
    return adapter_sha256(bench, job.id)


def adapter_sha256(bench, job_id):
    with bench.database.session() as session:
        return session.query(StoredAdapter).filter_by(job_id=job_id).one().sha256


def sweep_until(bench, job_id, status):
    def swept():
        bench.sweeper.run_once()
        return bench.job(job_id).status == status

    wait_until(swept, timeout_s=20)


def test_sigkill_of_the_attempt(bench, undisturbed):
    job_id = bench.submit(seed=9, steps=30, step_s=0.05)
    thread = bench.start(job_id)
    bench.wait_for_step(job_id, 5)
    (pid,) = attempt_pids(job_id)
    os.kill(pid, signal.SIGKILL)
    thread.join(10)
    job = bench.job(job_id)
    assert (job.status, bench.outcomes(job_id)) == ("queued", ["worker_lost"])
    job = bench.run(job_id)
    assert job.result["started_at_step"] >= 5
    assert adapter_sha256(bench, job_id) == undisturbed
    assert bench.scratch() == []


def test_sigkill_of_the_supervisor_takes_the_attempt_along(bench, undisturbed):
    job_id = bench.submit(seed=9, steps=30, step_s=0.05)
    supervisor = bench.start_process(job_id)
    bench.wait_for_step(job_id, 5)
    (pid,) = attempt_pids(job_id)
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not psutil.pid_exists(pid) or attempt_pids(job_id) == [], timeout_s=2)
    sweep_until(bench, job_id, "queued")
    assert bench.outcomes(job_id) == ["worker_lost"]
    job = bench.run(job_id)
    assert job.result["started_at_step"] >= 5
    assert adapter_sha256(bench, job_id) == undisturbed


def test_sigstop_of_the_supervisor_beyond_the_lease_fences_its_attempt(bench, undisturbed):
    job_id = bench.submit(seed=9, steps=30, once=True, behaviour="hang", at_step=6)
    supervisor = bench.start_process(job_id)
    bench.wait_for_step(job_id, 6)
    supervisor.send_signal(signal.SIGSTOP)
    sweep_until(bench, job_id, "queued")
    job = bench.run(job_id)
    assert (job.status, bench.outcomes(job_id)) == ("succeeded", ["worker_lost", "succeeded"])
    supervisor.send_signal(signal.SIGCONT)
    assert supervisor.wait(10) == 0
    assert attempt_pids(job_id) == []
    assert bench.outcomes(job_id) == ["worker_lost", "succeeded"]
    assert adapter_sha256(bench, job_id) == undisturbed
    bench.events(job_id)


def test_an_attempt_that_works_on_while_its_supervisor_is_stopped_is_fenced_too(bench):
    job_id = bench.submit(seed=9, steps=400, step_s=0.05)
    supervisor = bench.start_process(job_id)
    bench.wait_for_step(job_id, 3)
    supervisor.send_signal(signal.SIGSTOP)
    sweep_until(bench, job_id, "queued")
    wait_until(lambda: attempt_pids(job_id) == [], timeout_s=5)
    kept = bench.step(job_id)
    time.sleep(0.5)
    assert bench.step(job_id) == kept


def test_sigstop_of_the_attempt_ends_at_the_progress_deadline(bench):
    settings = bench.settings.model_copy(update={"progress_deadlines_s": {"training": 1.5}})
    job_id = bench.submit(steps=400, step_s=0.05)
    thread = bench.start(job_id, settings=settings)
    bench.wait_for_step(job_id, 3)
    os.kill(attempt_pids(job_id)[0], signal.SIGSTOP)
    thread.join(10)
    assert (bench.job(job_id).status, bench.outcomes(job_id)) == ("queued", ["progress_stalled"])
    assert attempt_pids(job_id) == []


class Held:
    """A lock that an attempt's next write of that kind waits for."""

    def __init__(self, bench, statement, **parameters):
        self.database = bench.database
        self.connection = self.database.engine.connect()
        self.connection.execute(text(statement), parameters)

    def wait_until_somebody_waits(self, table):
        query = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
            "AND query LIKE :query"
        )
        with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wait_until(lambda: connection.scalar(query, {"query": f"%{table}%"}) > 0)

    def release(self):
        self.connection.commit()
        self.connection.close()


@pytest.fixture
def start_gated(bench):
    """A job that has done its last step and waits for `open_gate()` to return; (job id, its thread, open_gate)."""

    def start():
        gate = bench.tmp_path / "gate"
        settings = bench.settings.model_copy(update={"heartbeat_s": 5.0, "lease_s": 20.0})
        job_id = bench.submit(seed=9, steps=30, end_gate=str(gate))
        thread = bench.start(job_id, settings=settings)
        bench.wait_for_step(job_id, 30)
        return job_id, thread, gate.touch

    return start


def n_adapters(bench, job_id):
    with bench.database.session() as session:
        return session.query(StoredAdapter).filter_by(job_id=job_id).count()


def test_kill_in_the_middle_of_the_final_transaction(bench, undisturbed, start_gated):
    job_id, thread, open_gate = start_gated()
    held = Held(bench, "LOCK TABLE adapters IN SHARE MODE")  # the job's row is written by then, the adapter is not
    open_gate()
    held.wait_until_somebody_waits("INSERT INTO adapters")
    os.kill(attempt_pids(job_id)[0], signal.SIGKILL)
    wait_until(lambda: attempt_pids(job_id) == [])
    held.release()
    thread.join(20)
    job = bench.job(job_id)
    assert (job.status, job.result, bench.outcomes(job_id)) == ("queued", None, ["worker_lost"])
    assert n_adapters(bench, job_id) == 0
    job = bench.run(job_id)
    assert (job.result["started_at_step"], n_adapters(bench, job_id)) == (30, 1)
    assert adapter_sha256(bench, job_id) == undisturbed


def test_a_cancel_before_the_final_transaction_wins(bench, start_gated):
    job_id, thread, open_gate = start_gated()
    held = Held(
        bench,
        "UPDATE jobs SET status = 'cancelling', cancel_requested_at = now() WHERE id = :id",
        id=job_id,
    )
    open_gate()
    held.wait_until_somebody_waits("jobs")
    held.release()
    thread.join(20)
    job = bench.job(job_id)
    assert (job.status, job.result, bench.outcomes(job_id)) == ("cancelled", None, ["cancelled"])
    assert n_adapters(bench, job_id) == 0


def test_a_cancel_during_the_final_transaction_finds_the_job_finished(bench, start_gated):
    job_id, thread, open_gate = start_gated()
    held = Held(bench, "LOCK TABLE adapters IN SHARE MODE")
    open_gate()
    held.wait_until_somebody_waits("INSERT INTO adapters")
    refused = []

    def cancel():
        try:
            bench.cancel(job_id)
        except JobFinished as error:
            refused.append(error)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    held.wait_until_somebody_waits("UPDATE jobs")
    held.release()
    canceller.join(20)
    thread.join(20)
    assert len(refused) == 1
    assert (bench.job(job_id).status, n_adapters(bench, job_id)) == ("succeeded", 1)


@pytest.mark.slow
def test_out_of_memory_killed_by_the_kernel(bench, monkeypatch):
    """The kernel's kill is SIGKILL and a risen counter; the counter is this machine's, or a file where it has none."""
    counter = bench.tmp_path / "memory.events"
    counter.write_text("oom_kill 0\n")
    monkeypatch.setattr("worker.oom._counter_files", lambda: (counter,))
    job_id = bench.submit(behaviour="hang", once=True, seed=9, steps=30)
    thread = bench.start(job_id)
    bench.wait_for_step(job_id, 3)
    counter.write_text("oom_kill 1\n")
    os.kill(attempt_pids(job_id)[0], signal.SIGKILL)
    thread.join(10)
    assert (bench.job(job_id).status, bench.outcomes(job_id)) == ("queued", ["worker_oom_killed"])
    job = bench.run(job_id)
    assert (job.status, job.attempts[-1]["batch_divisor"]) == ("succeeded", 2)


@pytest.fixture
def service(bench):
    """A sweeper that publishes to the folder broker, as in production, and workers of their own processes."""
    settings = bench.settings
    stop = threading.Event()
    database = Database(bench.database_url)
    sweeper = Sweeper(settings, database, make_celery(settings), Blobs(settings.blob_store_url, database))
    thread = threading.Thread(target=sweeper.run, args=(stop,))
    thread.start()
    workers = []

    def start_worker():
        command = [sys.executable, "-m", "tests.worker.toy_worker", bench.settings_json(), "cpu", *TOY_ATTEMPT]
        workers.append(subprocess.Popen(command))
        return workers[-1]

    yield start_worker
    for worker in workers:
        worker.kill()
        worker.wait()
    stop.set()
    thread.join()
    database.dispose()


@pytest.mark.slow
def test_sigkill_of_a_whole_worker_and_another_takes_over(bench, undisturbed, service):
    job_id = bench.submit(seed=9, steps=30, once=True, behaviour="hang", at_step=6)
    worker = service()
    bench.wait_for_step(job_id, 6)
    family = psutil.Process(worker.pid).children(recursive=True)
    worker.kill()
    worker.wait()
    wait_until(lambda: not any(child.is_running() for child in family), timeout_s=3)
    leftover = bench.scratch()
    assert len(leftover) == 1
    service()
    job = bench.wait_for(job_id, "succeeded", timeout_s=60)
    assert bench.outcomes(job_id) == ["worker_lost", "succeeded"]
    assert job.result["started_at_step"] == 6
    assert adapter_sha256(bench, job_id) == undisturbed
    wait_until(lambda: bench.scratch() == [])


@pytest.mark.slow
def test_sigkill_of_the_pool_process_and_the_same_worker_goes_on(bench, undisturbed, service):
    job_id = bench.submit(seed=9, steps=30, once=True, behaviour="hang", at_step=6)
    worker = service()
    bench.wait_for_step(job_id, 6)
    (pool_process,) = [child for child in psutil.Process(worker.pid).children() if child.children()]
    pool_process.kill()
    bench.wait_for(job_id, "succeeded", timeout_s=60)
    assert bench.outcomes(job_id) == ["worker_lost", "succeeded"]
    assert adapter_sha256(bench, job_id) == undisturbed
    assert worker.poll() is None
    wait_until(lambda: bench.scratch() == [])  # the killed one's folder went with its successor's start


@pytest.mark.slow
def test_sigterm_of_a_worker_hands_the_job_to_another_promptly(bench, undisturbed, service):
    job_id = bench.submit(seed=9, steps=30, step_s=0.1)
    worker = service()
    bench.wait_for_step(job_id, 3)
    worker.terminate()
    started = time.monotonic()
    assert worker.wait(20) == 0
    assert time.monotonic() - started < 15
    assert bench.outcomes(job_id)[0] in ("interrupted", "succeeded")
    with bench.database.session() as session:
        assert session.execute(text("SELECT count(*) FROM workers")).scalar_one() == 0
    service()
    bench.wait_for(job_id, "succeeded", timeout_s=60)
    assert adapter_sha256(bench, job_id) == undisturbed
    assert bench.job(job_id).tenant == TENANT
