import numpy as np
import pytest

from mr_core.errors import JobCancelled
from mr_core.jobs.outcome import AdapterContent, Artifact, JobOutcome, SpectrumContent
from service import adapters, attempts, jobs
from service.errors import Fenced, PayloadTooLarge
from service.models import Job, StoredAdapter, StoredArtifact, StoredSpectrum
from worker.publishing import publish

OUTCOME = JobOutcome(
    result={"metrics": {}},
    adapter=AdapterContent(config=b'{"format_version": 1}', weights=b"weights"),
    spectrum=SpectrumContent(np.array([1.0]), np.array([1.0]), {}),
    artifacts=(Artifact("report.html", "text/html", b"<html>"),),
)


@pytest.fixture
def claim(database):
    with database.session() as session:
        job = jobs.create_job(session, tenant="a", kind="toy", spec={"kind": "toy"}, queue="cpu")
        return attempts.claim(session, job.id, owner="wk", lease_s=60, environment={})


def stored_rows(database):
    with database.session() as session:
        return [session.query(table).count() for table in (StoredAdapter, StoredSpectrum, StoredArtifact)]


def test_everything_or_nothing(database, blobs, claim):
    with database.session() as session:
        publish(session, blobs, claim, OUTCOME)
    assert stored_rows(database) == [1, 1, 1]
    with database.session() as session:
        job = session.get(Job, claim.job_id)
        adapter = adapters.get(session, "a", job.result["adapter"])
        assert (job.status, adapter.config) == ("succeeded", {"format_version": 1})


def test_a_second_commit_of_the_same_attempt_is_fenced(database, blobs, claim):
    with database.session() as session:
        publish(session, blobs, claim, OUTCOME)
    with pytest.raises(Fenced), database.session() as session:
        publish(session, blobs, claim, OUTCOME)
    assert stored_rows(database) == [1, 1, 1]


def test_a_cancel_that_came_first_wins(database, blobs, claim):
    with database.session() as session:
        jobs.request_cancel(session, "a", claim.job_id)
    with pytest.raises(JobCancelled), database.session() as session:
        publish(session, blobs, claim, OUTCOME)
    assert stored_rows(database) == [0, 0, 0]


def test_an_adapter_too_large_for_the_database_is_refused_with_its_size(database, blobs, claim):
    large = JobOutcome(result={}, adapter=AdapterContent(config=b"{}", weights=bytes(65 * 2**20)))
    with pytest.raises(PayloadTooLarge, match="681"), database.session() as session:
        publish(session, blobs, claim, large)
    with database.session() as session:
        assert session.get(Job, claim.job_id).status == "running"
