"""A cluster whose PostgreSQL or Redis is away: at the start, at a POST, in the middle of a job."""

import contextlib
import os
import subprocess
import sys
import time

import httpx
import psutil
import pytest
import redis

from cli.client import TERMINAL
from cli.errors import ApiError
from cli.supervision import stop
from service.blobs import Blobs
from service.models import Job
from tests.cluster.chaos import connections, faults_in_rows, left_behind
from tests.cluster.cluster import Cluster
from tests.processes import processes_on, wait_until
from tests.worker.conftest import store_dataset

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

_PARTS = {"gateway": 1, "sweeper": 1, "cpu-worker": 1}
_LEASE_S = 6  # see QUICK


def make_cluster(folder, **options):
    settings = {"MR_MAX_ATTEMPTS": "10"}
    return Cluster(folder, only=_PARTS, settings=settings, module="tests.cluster.toy_part", **options)


def make_dataset(cluster):
    with cluster.database() as database:
        dataset = store_dataset(database, Blobs(cluster.blob_url, database), cluster.folder, tenant="default")
        with database.session() as session:
            session.query(Job).delete()  # its validation, which was cancelled
    return dataset


@pytest.fixture(scope="module")
def cluster(folder):
    with make_cluster(folder / "cluster") as cluster:
        yield cluster
    assert processes_on(folder / "cluster") == []


@pytest.fixture(scope="module")
def dataset(cluster):
    return make_dataset(cluster)


@pytest.fixture
def client(cluster):
    with cluster.client(timeout_s=30) as client:
        yield client


@pytest.fixture
def toy(client, dataset):
    """Submits a job of the toy kind; its id."""
    return lambda **fields: client.submit({"kind": "toy", "dataset": dataset, **fields})["id"]


def wait_for_step(cluster, client, job_id, step):
    def is_there():
        cluster.look_after()
        return ((client.job(job_id, patience_s=20)["progress"] or {}).get("step") or 0) >= step

    wait_until(is_there, 120, f"step {step}")


def wait_for_end(cluster, client, *job_ids):
    """Every job has succeeded, exactly once, and left what it should."""

    def have_ended():
        cluster.look_after()
        return all(client.job(job_id, patience_s=20)["status"] in TERMINAL for job_id in job_ids)

    wait_until(have_ended, 180, "the end of the jobs")
    with cluster.database() as database:
        assert faults_in_rows(database, []) == []
    assert left_behind(cluster, connections(cluster)) == []


def kill_postgres(cluster):
    server = psutil.Process(int((cluster.folder / "postgres" / "postmaster.pid").read_text().split()[0]))
    server.kill()
    wait_until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, 10, "PostgreSQL is dead")


@pytest.mark.parametrize("away_s", [1, _LEASE_S + 3])
def test_a_job_lives_through_a_stop_of_postgresql(cluster, client, toy, away_s):
    """For less than a lease, or for more: then the attempt is given up, and another goes on from its checkpoint."""
    job_id = toy(steps=60, step_s=0.1)
    wait_for_step(cluster, client, job_id, 3)
    cluster.stop_postgres()
    with pytest.raises(ApiError) as refused:
        client.get(f"/v1/jobs/{job_id}")
    assert (refused.value.status, refused.value.code) == (503, "database_unavailable")
    ready = httpx.get(f"{cluster.urls[0]}/readyz", timeout=30)
    failed = {check["name"] for check in ready.json()["checks"] if not check["is_ok"]}
    assert ready.status_code == 503
    assert {"database", "migrations"} <= failed
    time.sleep(away_s)
    cluster.start_postgres()
    wait_for_end(cluster, client, job_id)


def test_a_job_lives_through_a_kill_of_postgresql(cluster, client, toy):
    job_id = toy(steps=60, step_s=0.1)
    wait_for_step(cluster, client, job_id, 3)
    kill_postgres(cluster)
    wait_until(lambda: cluster.look_after() or cluster.server.running_url(), 60, "PostgreSQL has recovered")
    wait_for_end(cluster, client, job_id)


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_a_job_is_taken_while_redis_is_away_and_rung_for_later(cluster, client, toy, end):
    process = psutil.Process(cluster.redis.process.pid)
    process.kill() if end == "killed" else process.suspend()
    try:
        started = time.monotonic()
        job_id = toy(steps=2)
        took_s = time.monotonic() - started
        time.sleep(2.5)
        assert client.job(job_id)["status"] == "queued"
    finally:
        if end == "killed":
            stop([cluster.redis], patience_s=1)
            cluster.redis.start()
        else:
            process.resume()
    assert took_s < 10, "a POST waits for no broker"
    wait_for_end(cluster, client, job_id)


def test_jobs_live_through_a_wiped_redis(cluster, client, toy):
    running, waiting = toy(steps=40, step_s=0.1), toy(steps=2)
    wait_for_step(cluster, client, running, 3)
    with redis.Redis.from_url(cluster.redis_url) as broker:
        broker.flushall()
    wait_for_end(cluster, client, running, waiting)


@pytest.fixture
def without_postgres(folder):
    """A cluster that was set up before and whose PostgreSQL does not run."""
    cluster = make_cluster(folder / "late")
    try:
        cluster.prepare()
        dataset = make_dataset(cluster)
        cluster.stop_postgres()
        yield cluster, dataset
    finally:
        cluster.stop()
    assert processes_on(folder / "late") == []


def test_parts_that_start_before_postgresql_wait_for_it(without_postgres):
    cluster, dataset = without_postgres
    for part in cluster.parts.values():
        part.start()
    wait_until(lambda: is_alive(cluster.urls[0]), 60, "the gateway answers")
    ready = httpx.get(f"{cluster.urls[0]}/readyz", timeout=30)
    assert ready.status_code == 503
    assert [check["is_ok"] for check in ready.json()["checks"] if check["name"] == "database"] == [False]
    with cluster.client() as client:
        with pytest.raises(ApiError) as refused:
            client.request("POST", "/v1/jobs", json={"kind": "toy", "dataset": dataset})
        assert (refused.value.status, refused.value.code) == (503, "database_unavailable")
        time.sleep(5)
        assert all(part.is_alive for part in cluster.parts.values())
        cluster.start_postgres()
        wait_until(cluster.is_ready, 120, "the cluster is ready")
        wait_for_end(cluster, client, client.submit({"kind": "toy", "dataset": dataset, "steps": 2})["id"])
    for part in cluster.parts.values():
        said = part.log.read_text()
        assert "Traceback" not in said, said
        assert len(said.splitlines()) < 100, said


def test_parts_that_never_see_postgresql_end_with_one_clear_line(without_postgres):
    cluster, _ = without_postgres
    commands = {"sweeper": ["sweeper"], "worker": ["worker", "--queue", "io"], "predictor": ["predictor"]}
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, command in commands.items():
            environment = {**os.environ, **cluster.variables(name), "MR_PREDICTOR_PORT": "0"}
            command = [sys.executable, "-m", "cli.main", *command]
            processes[name] = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            stack.enter_context(processes[name])
            stack.callback(processes[name].kill)
        for name, process in processes.items():
            said = process.communicate(timeout=120)[1]
            assert process.returncode == 3, (name, said)
            assert said.startswith("mr: database_unavailable: the database does not answer"), (name, said)
            assert len(said.splitlines()) == 1, (name, said)


def is_alive(url):
    try:
        return httpx.get(f"{url}/healthz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
