"""A finished job's outcome as rows: one fenced transaction, whole or not at all."""

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from mr_core.adapter_file import zip_adapter
from mr_core.backbones.description import TRAINED_PREFIX
from mr_core.jobs.outcome import AdapterContent, Artifact, BackboneContent, JobOutcome, SpectrumContent
from service import adapters, attempts, backbones, sub_jobs
from service.attempts import Claim
from service.blobs import BlobInfo, Blobs
from service.ids import new_id
from service.models import StoredArtifact, StoredSpectrum


def store_weights(blobs: Blobs, outcome: JobOutcome) -> BlobInfo | None:
    """Keep the weights of a trained backbone before the transaction that names them: large bytes lock no row."""
    if outcome.backbone is None:
        return None
    with blobs.writer() as writer:
        writer.write(outcome.backbone.weights)
        return writer.commit()


def store_file(blobs: Blobs, outcome: JobOutcome) -> BlobInfo | None:
    """The same for what a part leaves for its job."""
    return None if outcome.file is None else blobs.put_file(outcome.file)


def publish(
    session: Session,
    blobs: Blobs,
    claim: Claim,
    outcome: JobOutcome,
    *,
    weights: BlobInfo | None = None,
    file: BlobInfo | None = None,
) -> None:
    """End the job as succeeded, with all it leaves. JobCancelled where a cancel was faster, Fenced without the lease.

    The job's row comes first and stays locked, so nothing is written for an attempt that has lost it.
    """
    adapter_id = new_id("ad") if outcome.adapter is not None else None
    result = dict(outcome.result)
    if adapter_id is not None:
        result["adapter"] = adapter_id
    if outcome.backbone is not None:
        result["backbone"] = TRAINED_PREFIX + claim.job_id
    attempts.finish_succeeded(session, claim, result)
    if outcome.adapter is not None:
        _store_adapter(session, blobs, claim, outcome.adapter, adapter_id)
    if outcome.backbone is not None and weights is not None:
        _store_backbone(session, claim, outcome.backbone, weights)
    if outcome.spectrum is not None:
        session.merge(_spectrum_row(claim, outcome.spectrum))
    for artifact in outcome.artifacts:
        session.merge(_artifact_row(session, blobs, claim, artifact))
    if file is not None:
        blobs.hold(session, file.sha256)  # an equal part of another job may have left the same bytes
        media_type = "application/octet-stream"
        session.merge(StoredArtifact(job_id=claim.job_id, name=sub_jobs.FILE, media_type=media_type, **asdict(file)))


def _store_adapter(
    session: Session, blobs: Blobs, claim: Claim, content: AdapterContent, adapter_id: str | None
) -> None:
    archive = zip_adapter(content)
    config: dict[str, Any] = json.loads(content.config)
    adapters.create(
        session,
        tenant=claim.tenant,
        job_id=claim.job_id,
        sha256=blobs.put_bytes(session, archive),
        size_bytes=len(archive),
        config=config,
        adapter_id=adapter_id,
    )


def _store_backbone(session: Session, claim: Claim, content: BackboneContent, weights: BlobInfo) -> None:
    backbones.create(
        session,
        tenant=claim.tenant,
        name=f"trained by {claim.job_id}",
        description=content.description,
        sha256=weights.sha256,
        size_bytes=weights.size_bytes,
        parameters=content.parameters,
        outputs=content.outputs,
        job_id=claim.job_id,
    )


def _spectrum_row(claim: Claim, spectrum: SpectrumContent) -> StoredSpectrum:
    return StoredSpectrum(
        job_id=claim.job_id,
        eigenvalues=spectrum.eigenvalues.tolist(),
        label_energy=spectrum.label_energy.tolist(),
        summary=dict(spectrum.summary),
    )


def _artifact_row(session: Session, blobs: Blobs, claim: Claim, artifact: Artifact) -> StoredArtifact:
    return StoredArtifact(
        job_id=claim.job_id,
        name=artifact.name,
        media_type=artifact.media_type,
        sha256=blobs.put_bytes(session, artifact.content),
        size_bytes=len(artifact.content),
    )
