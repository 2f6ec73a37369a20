"""A kernel in blocks through supervisors and their processes: the same bytes whoever computes them, killed or not."""

import os
import signal
import threading
from dataclasses import asdict

import pytest
from PIL import Image

from mr_core.datasets.dataset import ImageDataset
from mr_core.datasets.pack import write_pack
from mr_core.job_spec import JobSpec
from mr_core.run_job import run
from service import datasets, jobs, sub_jobs
from service.dispatch import dispatch
from service.models import Blob, Job, StoredArtifact, StoredSpectrum
from tests.worker.conftest import TENANT, wait_until
from tests.worker.test_execution import pid_of
from worker.supervisor import ATTEMPT_COMMAND

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SPEC = {
    "kind": "diagnose",
    "samples": 32,
    "block_samples": 16,
    "label_mapping": {"kind": "frequent"},
    "input_transform": {"kind": "padding", "image_size": 88},
}
ENDED = ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """Thirty-two images of two classes, which are two blocks."""
    path = tmp_path_factory.mktemp("packs") / "two-blocks.pack.zip"
    with write_pack(path) as writer:
        for split, n in (("train", 32), ("test", 4)):
            for i in range(n):
                image = Image.new("RGB", (12, 12), (7 * i, 90, 200 - 90 * (i % 2)))
                writer.add(image, split=split, class_name=f"class{i % 2}", name=f"{i}.png")
    return path


@pytest.fixture(scope="module")
def alone(pack):
    """What the library tells, in this process."""
    outcome = run(JobSpec.parse(SPEC | {"dataset": "d"}), ImageDataset.open(pack))
    spectrum = outcome.spectrum
    return spectrum.eigenvalues.tolist(), spectrum.label_energy.tolist(), spectrum.summary, outcome.result["predicted"]


@pytest.fixture
def bench(bench, pack):
    """With that dataset."""
    stored = bench.blobs.put_file(pack)
    with bench.database.session() as session:
        described = {"name": "two blocks", "modality": "image", **asdict(stored)}
        row = datasets.create(session, tenant=TENANT, **described)
        for job in session.query(Job).filter_by(dataset_id=row.id):
            jobs.cancel(session, job.id)
        datasets.set_ready(
            session,
            row.id,
            pack_sha256=stored.sha256,
            classes=["class0", "class1"],
            splits={"train": 32, "test": 4},
            report={},
        )
        bench.dataset_id = row.id
    return bench


@pytest.fixture
def steady(bench):
    """The settings of a supervisor whose lease outlives the import of torch on a busy machine."""
    return bench.settings.model_copy(update={"lease_s": 30.0})


def submit(bench, **changes):
    return bench.submit(**{**SPEC, **changes})


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


def kill_in_the_kernel(bench, job_id, settings):
    """Run the job and kill its attempt at the kernel."""

    def is_in(*phases):
        job = bench.job(job_id)
        return job.status == "running" and job.phase in phases

    thread = bench.start(job_id, command=ATTEMPT_COMMAND, settings=settings)
    wait_until(lambda: is_in("embedding", "diagnosing"), timeout_s=120)
    pid = pid_of(job_id)
    wait_until(lambda: is_in("diagnosing"), timeout_s=120)
    os.kill(pid, signal.SIGKILL)
    thread.join(60)
    assert bench.outcomes(job_id)[-1] == "worker_lost"


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_bytes_of_the_library(bench, steady, alone, workers):
    job = drive(bench, submit(bench), steady, workers=workers)
    assert [entry["outcome"] for entry in job.attempts] == ["waiting", "succeeded"]
    assert [part.result["samples"] for part in parts(bench, job.id)] == [[0, 16], [16, 32]]
    assert all(part.environment == job.environment for part in parts(bench, job.id))
    assert told(bench, job) == alone
    assert files(bench, job.id) == []


def test_a_killed_block_is_redone_alone(bench, steady, alone):
    job_id = submit(bench)
    bench.run(job_id, command=ATTEMPT_COMMAND, settings=steady)
    block, other = (part.id for part in parts(bench, job_id))
    assert bench.job(job_id).status == "queued"
    kill_in_the_kernel(bench, block, steady)
    assert bench.job(block).status == "queued"
    drive(bench, other, steady)
    drive(bench, block, steady)
    assert (len(bench.job(block).attempts), len(bench.job(other).attempts)) == (2, 1)
    assert due(bench) == [job_id]
    assert bench.job(job_id).progress == {"step": 2, "total": 2, "unit": "block"}
    assert told(bench, drive(bench, job_id, steady)) == alone


def test_a_job_killed_at_its_products_finds_its_blocks_again(bench, steady, alone):
    job_id = submit(bench)
    bench.run(job_id, command=ATTEMPT_COMMAND, settings=steady)
    for part in parts(bench, job_id):
        bench.run(part.id, command=ATTEMPT_COMMAND, settings=steady)
    left = files(bench, job_id)
    assert len(left) == 2
    assert due(bench) == [job_id]
    kill_in_the_kernel(bench, job_id, steady)
    assert files(bench, job_id) == left
    job = drive(bench, job_id, steady)
    assert bench.outcomes(job_id) == ["waiting", "worker_lost", "succeeded"]
    assert told(bench, job) == alone
    assert files(bench, job_id) == []
    with bench.database.session() as session:
        assert session.query(Blob).filter(Blob.sha256.in_(left)).count() == 0


def test_a_cancelled_job_leaves_no_files(bench, steady):
    job_id = submit(bench)
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


def test_an_impossible_block_fails_its_job_with_the_reason(bench, steady):
    job_id = submit(bench)
    bench.run(job_id, command=ATTEMPT_COMMAND, settings=steady)
    with bench.database.session() as session:
        block = session.get(Job, parts(bench, job_id)[0].id)
        block.spec = block.spec | {"stop": 99}
    job = drive(bench, job_id, steady)
    assert (job.status, job.error["code"]) == ("failed", "kernel_error")
    assert "found samples 0 to 98, the subsample has 32" in job.error["detail"]
    assert files(bench, job_id) == []
