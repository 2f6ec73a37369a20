"""A real training run through the supervisor: killed and resumed, it ends with the same bytes."""

import os
import signal
import sys

import psutil
import pytest

from mr_core.adapter import load_adapter
from service import adapters, jobs
from service.models import StoredCheckpoint
from tests.worker.conftest import TENANT, wait_until
from worker.supervisor import ATTEMPT_COMMAND

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def submit(bench, **changes):
    spec = {
        "kind": "reprogram",
        "dataset": bench.dataset_id,
        "label_mapping": {"kind": "frequent"},
        "trainer": {"kind": "gradient", "epochs": 12, "batch_size": 4},
        "evaluation": {"validation_fraction": 0.25},
        "seed": 3,
        **changes,
    }
    with bench.database.session() as session:
        return jobs.create_job(
            session, tenant=TENANT, kind="reprogram", spec=spec, queue="cpu", dataset_id=bench.dataset_id
        ).id


def archive(bench, job):
    with bench.database.session() as session:
        return bench.blobs.read(session, adapters.get(session, TENANT, job.result["adapter"]).sha256)


def test_training_killed_in_the_middle_ends_with_the_same_bytes(bench):
    undisturbed = bench.run(submit(bench), command=ATTEMPT_COMMAND)
    assert (undisturbed.status, undisturbed.error) == ("succeeded", None)
    assert undisturbed.result["backbone_unchanged"] is True

    settings = bench.settings.model_copy(update={"lease_s": 30.0})
    job_id = submit(bench)
    thread = bench.start(job_id, command=ATTEMPT_COMMAND, settings=settings)
    wait_until(lambda: bench.step(job_id) >= 3, timeout_s=60)
    os.kill(pid_of(job_id), signal.SIGKILL)
    thread.join(20)
    assert bench.outcomes(job_id) == ["worker_lost"]
    with bench.database.session() as session:
        assert 3 <= session.get(StoredCheckpoint, (job_id, "training")).step < 12
    resumed = bench.run(job_id, command=ATTEMPT_COMMAND)
    assert resumed.status == "succeeded"
    assert archive(bench, resumed) == archive(bench, undisturbed)
    classifier = load_adapter(archive(bench, resumed))
    assert classifier.classes == ("class0", "class1")
    assert {event.data["phase"] for event in bench.events(job_id, "phase")} >= {"embedding", "training", "publishing"}


def test_what_the_backbone_cannot_do_is_a_failure_with_its_code(bench):
    job_id = submit(bench, input_transform={"kind": "padding", "image_size": 500})
    job = bench.run(job_id, command=ATTEMPT_COMMAND)
    assert (job.status, job.error["code"], job.error["param"]) == (
        "failed",
        "impossible_spec",
        "input_transform.image_size",
    )


def test_an_unknown_registered_backbone_is_named(bench):
    job = bench.run(submit(bench, backbone="bb_absent"), command=ATTEMPT_COMMAND)
    assert job.error == {"code": "invalid_backbone", "detail": "there is no backbone bb_absent", "param": "backbone"}


def pid_of(job_id):
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if command[:3] == [sys.executable, "-m", "worker.attempt"] and job_id in process.environ()["TMPDIR"]:
                return process.pid
        except (psutil.Error, KeyError):
            continue
    raise AssertionError("no attempt runs")
