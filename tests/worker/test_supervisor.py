"""How attempts end, each with its typed outcome."""

import hashlib
import os
import signal
import time

import pytest

from service import adapters
from service.models import StoredAdapter, StoredArtifact, StoredCheckpoint, StoredSpectrum
from tests.worker.conftest import TENANT, wait_until
from tests.worker.processes import attempt_pids

pytestmark = pytest.mark.integration


def expected_digest(seed, steps):
    digest = hashlib.sha256(str(seed).encode()).digest()
    for _ in range(steps):
        digest = hashlib.sha256(digest).digest()
    return digest


def test_success_stores_result_adapter_spectrum_artifacts_checkpoint_and_events(bench):
    job_id = bench.submit(seed=5, steps=4)
    job = bench.run(job_id)
    assert (job.status, job.error, job.phase) == ("succeeded", None, "publishing")
    digest = expected_digest(5, 4)
    assert job.result["digest"] == digest.hex()
    with bench.database.session() as session:
        adapter = adapters.get(session, TENANT, job.result["adapter"])
        content = bench.blobs.read(session, adapter.sha256)
        spectrum = session.get(StoredSpectrum, job_id)
        artifact = session.get(StoredArtifact, (job_id, "plots/curves.svg"))
        checkpoint = session.get(StoredCheckpoint, (job_id, "training"))
        assert bench.blobs.read(session, artifact.sha256) == b"<svg/>"
    assert (adapter.job_id, adapter.config, adapter.size_bytes) == (job_id, {"seed": 5}, len(content))
    assert digest in content
    assert (spectrum.eigenvalues, spectrum.summary) == ([2.0, 1.0], {"n_samples": 2})
    assert (checkpoint.step, checkpoint.state) == (4, {"digest": digest.hex()})
    assert [event.data["step"] for event in bench.events(job_id, "metrics")] == [1, 2, 3, 4]
    assert [event.data["phase"] for event in bench.events(job_id, "phase")] == ["training", "publishing"]
    assert [event.data["status"] for event in bench.events(job_id, "status")] == ["queued", "running", "succeeded"]
    assert job.result["threads"] == "1"
    assert bench.scratch() == []


def test_a_second_message_for_the_same_job_does_nothing(bench):
    job_id = bench.submit(steps=1)
    bench.run(job_id)
    bench.run(job_id)
    assert bench.outcomes(job_id) == ["succeeded"]


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("impossible", {"code": "impossible_spec", "detail": "cannot be", "param": "steps"}),
        ("bug", {"code": "internal_error", "detail": "a bug in the service (KeyError); it was logged", "param": None}),
        ("exit", None),
    ],
)
def test_what_a_retry_would_not_change_fails_at_once(bench, behaviour, error):
    job = bench.run(bench.submit(behaviour=behaviour))
    assert (job.status, job.result) == ("failed", None)
    assert len(job.attempts) == 1
    if error is None:
        assert job.error["code"] == "internal_error"
        assert "status 3" in job.error["detail"]
    else:
        assert job.error == error


def test_a_killed_attempt_is_lost_and_the_next_goes_on_from_its_checkpoint(bench):
    undisturbed = bench.run(bench.submit(seed=1))
    job_id = bench.submit(seed=1, behaviour="segfault", once=True)
    job = bench.run(job_id)
    assert (job.status, bench.outcomes(job_id)) == ("queued", ["worker_lost"])
    job = bench.run(job_id)
    assert (job.status, bench.outcomes(job_id)) == ("succeeded", ["worker_lost", "succeeded"])
    assert job.result["started_at_step"] == 3
    with bench.database.session() as session:
        bytes_of = {row.job_id: row.sha256 for row in session.query(StoredAdapter)}
    assert bytes_of[job_id] == bytes_of[undisturbed.id]


def test_the_first_claims_environment_is_used_again(bench):
    job_id = bench.submit(behaviour="segfault", once=True)
    bench.run(job_id)
    settings = bench.settings.model_copy(update={"threads": 2})
    job = bench.run(job_id, settings=settings)
    assert job.environment["threads"] == 1
    assert job.result["threads"] == "1"


def test_attempts_are_limited(bench):
    job_id = bench.submit(behaviour="segfault", max_attempts=2)
    bench.run(job_id)
    job = bench.run(job_id)
    assert (job.status, job.error["code"]) == ("failed", "worker_lost")
    assert bench.outcomes(job_id) == ["worker_lost", "worker_lost"]


def test_out_of_memory_is_tried_once_more_with_half_the_batch(bench):
    job_id = bench.submit(behaviour="memory")
    bench.run(job_id)
    job = bench.run(job_id)
    assert (job.status, job.error["code"]) == ("failed", "worker_oom_killed")
    assert [attempt["batch_divisor"] for attempt in job.attempts] == [1, 2]
    assert "1/2 as many images" in bench.events(job_id, "message")[0].data["text"]


def test_a_hung_attempt_is_killed_at_the_progress_deadline_of_its_phase(bench):
    # The start counts as a phase of its own: importing torch takes a while on a busy machine.
    settings = bench.settings.model_copy(update={"progress_deadlines_s": {"training": 1.5}})
    job_id = bench.submit(behaviour="hang", once=True)
    started = time.monotonic()
    job = bench.run(job_id, settings=settings)
    assert (job.status, bench.outcomes(job_id)) == ("queued", ["progress_stalled"])
    assert time.monotonic() - started < 30
    assert bench.run(job_id).status == "succeeded"


@pytest.mark.parametrize("behaviour", ["none", "hang", "deaf"])
def test_a_cancel_is_answered_within_ten_seconds(bench, behaviour):
    job_id = bench.submit(steps=1000, step_s=0.05, behaviour=behaviour)
    bench.start(job_id)
    bench.wait_for_step(job_id, 3)
    bench.cancel(job_id)
    started = time.monotonic()
    job = bench.wait_for(job_id, "cancelled", timeout_s=10)
    assert time.monotonic() - started < (3 if behaviour == "none" else 8)
    assert (job.result, bench.outcomes(job_id)) == (None, ["cancelled"])
    wait_until(lambda: attempt_pids(job_id) == [] and bench.scratch() == [])


def test_a_stopping_worker_hands_the_job_back_after_the_next_checkpoint(bench):
    stopping = []
    job_id = bench.submit(seed=3, steps=400, step_s=0.05)
    thread = bench.start(job_id, is_stopping=lambda: bool(stopping), stop_grace_s=10)
    bench.wait_for_step(job_id, 2)
    stopping.append(True)
    thread.join(8)
    job = bench.job(job_id)
    assert (job.status, bench.outcomes(job_id), job.attempt) == ("queued", ["interrupted"], 0)
    with bench.database.session() as session:
        kept = session.get(StoredCheckpoint, (job_id, "training")).step
    assert 2 <= kept < 400
    bench.start(job_id)
    wait_until(lambda: bench.step(job_id) > kept)
    bench.cancel(job_id)
    bench.wait_for(job_id, "cancelled")


def test_a_stopping_worker_kills_an_attempt_that_reaches_no_checkpoint(bench):
    stopping = []
    job_id = bench.submit(behaviour="hang", once=True)
    thread = bench.start(job_id, is_stopping=lambda: bool(stopping), stop_grace_s=1)
    bench.wait_for_step(job_id, 3)
    stopping.append(True)
    thread.join(10)
    job = bench.job(job_id)
    assert (job.status, bench.outcomes(job_id), job.attempt) == ("queued", ["interrupted"], 0)


def test_a_stopping_worker_claims_nothing(bench):
    job_id = bench.submit()
    assert bench.run(job_id, is_stopping=lambda: True).status == "queued"


def test_scratch_and_grandchildren_of_a_killed_attempt_are_gone(bench):
    job_id = bench.submit(behaviour="scratch", max_attempts=1)
    bench.start(job_id)
    bench.wait_for_step(job_id, 3)
    wait_until(lambda: any((bench.settings.data_dir / "scratch").glob("*/images.npy")))
    (pid,) = attempt_pids(job_id)
    grandchildren = wait_until(lambda: attempt_pids(job_id, grandchildren=True))
    os.kill(pid, signal.SIGKILL)
    bench.wait_for(job_id, "failed")
    wait_until(lambda: bench.scratch() == [])
    wait_until(lambda: not any(process.is_running() for process in grandchildren))


def test_a_dataset_deleted_meanwhile_is_named(bench):
    job_id = bench.submit(dataset="ds_absent")
    job = bench.run(job_id)
    assert job.error == {"code": "invalid_dataset", "detail": "there is no dataset ds_absent", "param": "dataset"}
