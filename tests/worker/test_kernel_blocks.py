"""A kernel in blocks through supervisors and their processes: the same bytes whoever computes them, killed or not."""

import os
import signal
import threading

import pytest

from mr_core.datasets.dataset import ImageDataset
from mr_core.job_spec import JobSpec
from mr_core.run_job import run
from service import jobs, sub_jobs
from service.dispatch import dispatch
from service.models import Blob, Job, StoredArtifact, StoredSpectrum
from tests.worker.conftest import TENANT, wait_until
from tests.worker.test_execution import pid_of
from worker.supervisor import ATTEMPT_COMMAND

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SPEC = {
    "kind": "diagnose",
    "samples": 16,
    "block_samples": 16,
    "label_mapping": {"kind": "frequent"},
    "input_transform": {"kind": "padding", "image_size": 88},
}
ENDED = ("succeeded", "failed", "cancelled")


@pytest.fixture
def steady(bench):
    """The settings of a supervisor whose lease outlives the import of torch on a busy machine."""
    return bench.settings.model_copy(update={"lease_s": 30.0})


def submit(bench, **changes):
    return bench.submit(kind="diagnose", **{**SPEC, **changes})


def due(bench):
    dispatch(bench.database, lambda one, queue: None)
    with bench.database.session() as session:
        query = session.query(Job.id).filter(Job.status == "queued", Job.next_dispatch_at.is_not(None))
        return [one for (one,) in query.order_by(Job.created_at, Job.id)]


def drive(bench, job_id, settings, *, workers=1):
    """Run what is due, so many at a time, until the job has ended."""
    while bench.job(job_id).status not in ENDED:
        threads = [
            threading.Thread(
                target=bench.supervisor(command=ATTEMPT_COMMAND, settings=settings, owner=f"wk_{n}").run, args=(one,)
            )
            for n, one in enumerate(due(bench)[:workers])
        ]
        assert threads, "nobody is due, and the job has not ended"
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return bench.job(job_id)


def told(bench, job):
    """What the job says of its kernel, times aside."""
    assert (job.status, job.error) == ("succeeded", None)
    with bench.database.session() as session:
        kept = session.get(StoredSpectrum, job.id)
        return kept.eigenvalues, kept.label_energy, kept.summary, job.result["predicted"]


def parts(bench, job_id):
    with bench.database.session() as session:
        return session.query(Job).filter_by(parent_id=job_id).order_by(Job.part).all()


def files(bench, job_id):
    """The blobs that the parts have left, as far as they are there."""
    with bench.database.session() as session:
        query = session.query(StoredArtifact.sha256).join(Job, Job.id == StoredArtifact.job_id)
        return [sha for (sha,) in query.filter(Job.parent_id == job_id, StoredArtifact.name == sub_jobs.FILE)]


def kill_when(bench, job_id, settings, condition):
    """Run the job and kill its attempt at that moment."""
    thread = bench.start(job_id, command=ATTEMPT_COMMAND, settings=settings)
    wait_until(condition, timeout_s=60)
    os.kill(pid_of(job_id), signal.SIGKILL)
    thread.join(20)
    assert bench.outcomes(job_id)[-1] == "worker_lost"


def test_one_worker_two_workers_kills_and_the_library_give_the_same_bytes(bench, steady, tmp_path, two_blocks):
    alone = run(JobSpec.parse(SPEC | two_blocks | {"dataset": "tiny"}), ImageDataset.open(tmp_path / "tiny.pack.zip"))
    undisturbed = drive(bench, submit(bench, **two_blocks), steady)
    assert [entry["outcome"] for entry in undisturbed.attempts] == ["waiting", "succeeded"]
    assert [part.result["samples"] for part in parts(bench, undisturbed.id)] == [[0, 16], [16, 32]]
    assert all(part.environment == undisturbed.environment for part in parts(bench, undisturbed.id))
    expected = told(bench, undisturbed)
    assert expected[0] == alone.spectrum.eigenvalues.tolist()
    assert expected[2] == alone.spectrum.summary

    assert told(bench, drive(bench, submit(bench, **two_blocks), steady, workers=2)) == expected

    job_id = submit(bench, **two_blocks)
    bench.run(job_id, command=ATTEMPT_COMMAND, settings=steady)
    block, other = (part.id for part in parts(bench, job_id))
    assert bench.job(job_id).status == "queued"
    kill_when(bench, block, steady, lambda: bench.job(block).phase == "diagnosing")
    assert bench.job(block).status == "queued"
    drive(bench, other, steady)
    drive(bench, block, steady)
    assert (len(bench.job(block).attempts), len(bench.job(other).attempts)) == (2, 1)  # it is redone alone
    assert due(bench) == [job_id]
    assert bench.job(job_id).progress == {"step": 2, "total": 2, "unit": "block"}
    left = files(bench, job_id)
    assert len(left) == 2
    kill_when(bench, job_id, steady, lambda: bench.job(job_id).phase == "diagnosing")  # the job itself, assembling
    assert files(bench, job_id) == left
    job = drive(bench, job_id, steady)
    assert bench.outcomes(job_id) == ["waiting", "worker_lost", "succeeded"]
    assert told(bench, job) == expected
    assert files(bench, job_id) == []
    with bench.database.session() as session:
        assert session.query(Blob).filter(Blob.sha256.in_(left)).count() == 0


def test_a_cancelled_job_leaves_no_files(bench, steady, two_blocks):
    job_id = submit(bench, **two_blocks)
    bench.run(job_id, command=ATTEMPT_COMMAND, settings=steady)
    block = parts(bench, job_id)[0].id
    bench.run(block, command=ATTEMPT_COMMAND, settings=steady)
    (left,) = files(bench, job_id)
    with bench.database.session() as session:
        jobs.request_cancel(session, TENANT, job_id)
    bench.sweeper.run_once()
    bench.sweeper.collect_garbage()
    assert {part.status for part in parts(bench, job_id)} == {"succeeded", "cancelled"}
    assert files(bench, job_id) == []
    with bench.database.session() as session:
        assert session.get(Blob, left) is None


def test_an_impossible_block_fails_its_job_with_the_reason(bench, steady, two_blocks):
    job_id = submit(bench, **two_blocks)
    bench.run(job_id, command=ATTEMPT_COMMAND, settings=steady)
    with bench.database.session() as session:
        block = session.get(Job, parts(bench, job_id)[0].id)
        block.spec = block.spec | {"stop": 99}
    job = drive(bench, job_id, steady)
    assert (job.status, job.error["code"]) == ("failed", "kernel_error")
    assert "found samples 0 to 98, the subsample has 32" in job.error["detail"]
    assert files(bench, job_id) == []


@pytest.fixture
def two_blocks(bench, tmp_path):
    """Changes to the spec that make two blocks of the dataset, which has thirty-two images then."""
    from PIL import Image

    from mr_core.datasets.pack import write_pack
    from service import datasets

    pack = tmp_path / "tiny.pack.zip"
    with write_pack(pack) as writer:
        for split, n in (("train", 32), ("test", 4)):
            for i in range(n):
                image = Image.new("RGB", (12, 12), (7 * i, 90, 200 - 90 * (i % 2)))
                writer.add(image, split=split, class_name=f"class{i % 2}", name=f"{i}.png")
    stored = bench.blobs.put_file(pack)
    with bench.database.session() as session:
        datasets.set_ready(
            session,
            bench.dataset_id,
            pack_sha256=stored.sha256,
            classes=["class0", "class1"],
            splits={"train": 32, "test": 4},
            report={},
        )
    return {"samples": 32}
