"""Two predictors behind a gateway: killed before a question and in the middle of one."""

import io
import random
import threading
import time

import httpx
import psutil
import pytest
from PIL import Image

from service import adapters
from service.blobs import Blobs
from tests.cluster.cluster import Cluster
from tests.processes import processes_on, wait_until
from tests.worker.test_predictor import make_adapter

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(folder):
    with Cluster(folder / "cluster", only={"gateway": 1, "predictor": 1, "predictor-2": 1}) as cluster:
        yield cluster
    assert processes_on(folder / "cluster") == []


@pytest.fixture(scope="module")
def ask(cluster):
    """Asks for predictions of so many images; the answer."""
    with cluster.database() as database:
        archive = make_adapter(0)
        blobs = Blobs(cluster.blob_url, database)
        with database.session() as session:
            sha256 = blobs.put_bytes(session, archive)
            adapter = adapters.create(
                session, tenant="default", job_id=None, sha256=sha256, size_bytes=len(archive), config={}
            ).id

    def run(n_images=1, side=40):
        pixels = random.Random(0).randbytes(3 * side * side)
        file = io.BytesIO()
        Image.frombytes("RGB", (side, side), pixels).save(file, "PNG")
        files = [("images", (f"{n}.png", file.getvalue())) for n in range(n_images)]
        url = f"{cluster.urls[0]}/v1/adapters/{adapter}/predict"
        return httpx.post(url, headers={"Authorization": f"Bearer {cluster.key}"}, files=files, timeout=120)

    return run


@pytest.fixture
def parts(cluster):
    """Both predictors, running and cold: their first question takes seconds."""
    found = cluster.of("predictor")
    for part in found:
        if part.process is not None:
            part.process.kill()
            part.process.wait()
        part.start()
    wait_until(cluster.is_ready, 120, "both predictors answer")
    return found


def kill(part):
    part.process.kill()
    part.process.wait()


def in_thread(ask):
    """A long question under way; `join` for the list with its answer."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask(n_images=24, side=600)))
    thread.start()
    return thread, answers


def cpu_s(part):
    times = psutil.Process(part.process.pid).cpu_times()
    return times.user + times.system


def busy_one(parts, before, timeout_s=60):
    """The predictor that has begun to compute."""
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        for part, spent in zip(parts, before, strict=True):
            if cpu_s(part) > spent + 0.4:
                return part
        time.sleep(0.02)
    raise AssertionError("no predictor has begun to compute")


def test_requests_go_on_when_one_is_dead(cluster, ask, parts):
    first = ask()
    assert first.status_code == 200, first.text
    kill(parts[0])
    answers = [ask() for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 8
    assert all(answer.json() == first.json() for answer in answers)


def test_a_predictor_killed_in_the_middle_of_a_request_is_replaced_by_the_other(cluster, ask, parts):
    before = [cpu_s(part) for part in parts]
    thread, answers = in_thread(ask)
    kill(busy_one(parts, before))
    thread.join(120)
    assert [answer.status_code for answer in answers] == [200]
    assert len(answers[0].json()["predictions"]) == 24


def test_the_last_predictor_killed_in_the_middle_of_a_request_is_a_clear_error(cluster, ask, parts):
    kill(parts[1])
    before = [cpu_s(parts[0])]
    thread, answers = in_thread(ask)
    kill(busy_one(parts[:1], before))
    thread.join(60)
    (answer,) = answers
    assert (answer.status_code, answer.json()["code"]) == (503, "predictor_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert ask().status_code == 503
    for part in parts:
        if not part.is_alive:
            part.start()
    wait_until(cluster.is_ready, 120, "both predictors answer")
    assert ask().status_code == 200
