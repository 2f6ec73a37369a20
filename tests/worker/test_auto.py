"""A search through attempts: parts in the queue, its study in PostgreSQL, the same as in the library."""

import pytest

from mr_core.adapter import load_adapter
from mr_core.datasets.dataset import ImageDataset
from mr_core.job_spec import JobSpec
from mr_core.run_job import run
from service import adapters, attempts, jobs
from service.dispatch import dispatch
from service.models import Job
from tests.mr_core.conftest import make_tiny_backbone
from tests.worker.conftest import TENANT
from worker.attempt import STORED, Attempt
from worker.lifeline import Lifeline
from worker.studies import StoredStudies

pytestmark = pytest.mark.integration

SEARCH = {
    "input_transforms": [{"kind": "padding"}],
    "label_mappings": [{"kind": "iterative"}],
    "budget": {"max_trials": 4},
    "parallel": 3,
    "min_epochs": 1,
    "max_epochs": 1,
    "samples": 8,
    "evaluation": {"validation_fraction": 0.5},
}


def drive(bench, job_id):
    """Do whatever is due, in this process, until the job has ended; how many attempts at the job itself that took."""
    n = 0
    while bench.job(job_id).status not in ("succeeded", "failed", "cancelled"):
        dispatch(bench.database, lambda one, queue: None)
        with bench.database.session() as session:
            due = session.query(Job.id).filter(Job.status == "queued", Job.next_dispatch_at.is_not(None)).all()
        assert due, "nobody is due, and the job has not ended"
        for (one,) in due:
            attempt(bench, one)
            n += one == job_id
    return n


def attempt(bench, job_id):
    with bench.database.session() as session:
        claim = attempts.claim(session, job_id, owner="wk_here", lease_s=600, environment={"threads": 1})
    scratch = bench.tmp_path / f"{job_id}-{claim.attempt}-{claim.fence}"
    scratch.mkdir()
    here = {"settings": bench.settings, "database": bench.database, "blobs": bench.blobs}
    assert Attempt(claim=claim, lifeline=Lifeline(), device="cpu", scratch=scratch, **here).run() == STORED


@pytest.fixture
def backbone(monkeypatch):
    """The same for every id, here and in the library: loading a real one takes longer than all the rest."""
    backbone = make_tiny_backbone()
    monkeypatch.setattr("worker.backbones.TenantBackbones.load", lambda self, backbone_id: backbone)
    monkeypatch.setattr("mr_core.run_job.load_backbone", lambda backbone_id, **_: backbone)
    monkeypatch.setattr("mr_core.jobs.reprogram.run.reprogram_artifacts", lambda **_: [])
    return backbone


def test_a_search_is_the_library_s_and_its_study_goes_with_it(bench, backbone, tmp_path):
    spec = {"kind": "auto", "dataset": bench.dataset_id, **SEARCH}
    with bench.database.session() as session:
        job_id = jobs.create_job(
            session, tenant=TENANT, kind="auto", spec=JobSpec.parse(spec).model_dump(mode="json"), queue="cpu",
            dataset_id=bench.dataset_id,
        ).id  # fmt: skip
    assert drive(bench, job_id) == 3
    job = bench.job(job_id)
    assert (job.status, job.error) == ("succeeded", None)
    found = job.result["search"]
    alone = run(JobSpec.parse(spec), ImageDataset.open(tmp_path / "tiny.pack.zip")).result["search"]
    for search in (found, alone):
        del search["seconds"]
        for row in search["trials"]:
            del row["seconds"]
            row["rungs"] = [rung["validation_accuracy"] for rung in row["rungs"]]
    assert found == alone
    with bench.database.session() as session:
        parts = session.query(Job).filter(Job.parent_id == job_id).all()
        assert {part.kind for part in parts} == {"trial"}
        content = bench.blobs.read(session, adapters.get(session, TENANT, job.result["adapter"]).sha256)
    assert load_adapter(content, backbone=backbone).classes == ("class0", "class1")
    with StoredStudies(bench.database, job_id).open() as study:
        assert len(study.get_trials()) == 4
    with bench.database.session() as session:
        jobs.delete(session, TENANT, job_id)
    with StoredStudies(bench.database, job_id).open() as study:
        assert study.get_trials() == []
