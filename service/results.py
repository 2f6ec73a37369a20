"""What a job leaves beside its row: spectrum, files, checkpoints. That the job is the tenant's is checked before."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mr_core.errors import SpecError
from service.errors import NotFound
from service.jobs import get_job
from service.models import StoredArtifact, StoredCheckpoint, StoredSpectrum


def get_ranking(session: Session, tenant: str, job_id: str, *, dataset_id: str) -> Mapping[str, Any]:
    """What a `rank` of the dataset found; SpecError where there is none that has succeeded under this id."""
    try:
        job = get_job(session, tenant, job_id)
    except NotFound as error:
        raise SpecError(f"there is no job {job_id}", param="ranking") from error
    if job.kind != "rank" or job.status != "succeeded" or job.result is None:
        raise SpecError(
            f"{job_id} is a {job.kind} that is {job.status}, expected a rank that has succeeded", param="ranking"
        )
    if job.dataset_id != dataset_id:
        raise SpecError(f"{job_id} is a ranking on {job.dataset_id}, not on {dataset_id}", param="ranking")
    return job.result


def get_spectrum(session: Session, job_id: str) -> StoredSpectrum:
    """The spectrum of the job's kernel."""
    spectrum = session.get(StoredSpectrum, job_id)
    if spectrum is None:
        raise NotFound(f"{job_id} has no spectrum: a diagnose job has one once it has succeeded")
    return spectrum


def list_artifacts(session: Session, job_id: str) -> Sequence[StoredArtifact]:
    """The job's files, by name."""
    return session.scalars(select(StoredArtifact).filter_by(job_id=job_id).order_by(StoredArtifact.name)).all()


def get_artifact(session: Session, job_id: str, name: str) -> StoredArtifact:
    """One file; the NotFound of a name that is not there lists those that are."""
    artifact = session.get(StoredArtifact, (job_id, name))
    if artifact is None:
        names = [artifact.name for artifact in list_artifacts(session, job_id)]
        raise NotFound(f"{job_id} has no {name}; it has {', '.join(names) or 'no files (yet)'}")
    return artifact


def list_checkpoints(session: Session, job_id: str) -> Sequence[StoredCheckpoint]:
    """The newest state of each phase that keeps one."""
    return session.scalars(select(StoredCheckpoint).filter_by(job_id=job_id).order_by(StoredCheckpoint.name)).all()
