"""What a job leaves: metrics, spectrum, checkpoints, files, plots, report."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from api.content import content_response
from api.dependencies import Parts, PartsOf, Reader, SessionOf
from api.negotiation import best_media_type
from api.responses import ArtifactAnswer, CheckpointAnswer, ListOf, list_of
from service import events, jobs, results
from service.models import StoredArtifact, StoredSpectrum

router = APIRouter(prefix="/v1/jobs", tags=["results"])

CSV, JSON, NPZ, OCTETS = "text/csv", "application/json", "application/x-npz", "application/octet-stream"
_MANY = 100_000
# A file that a job left is shown, but neither its scripts nor its links act in the gateway's name.
_SANDBOX = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"


class MetricsAnswer(BaseModel):
    """Rows of metrics in the order they came."""

    data: list[dict[str, Any]]


class SpectrumAnswer(BaseModel):
    """A kernel's spectrum: eigenvalues descending, and the share of label energy up to each."""

    eigenvalues: list[float]
    label_energy: list[float]
    summary: dict[str, Any]


@router.get("/{job_id}/metrics", response_model=MetricsAnswer, responses={200: {"content": {CSV: {}}}})
def read_metrics(request: Request, job_id: str, session: SessionOf, caller: Reader) -> MetricsAnswer | Response:
    """The rows of metrics that the job has reported; JSON or CSV by Accept.

    An attempt that goes on after a crash reports again what came after its last checkpoint: the later row counts.
    """
    job = jobs.get_job(session, caller.tenant, job_id)
    reported = events.list_events(session, job.id, type="metrics", limit=_MANY)
    rows = list({_position(event.data) or (("seq", event.seq),): dict(event.data) for event in reported}.values())
    if best_media_type(request, (JSON, CSV)) == CSV:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        return _csv(columns, ([row.get(name, "") for name in columns] for row in rows))
    return MetricsAnswer(data=rows)


def _position(row: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What tells rows apart: their epoch or step (of a control, under its name)."""
    return tuple((name, value) for name, value in row.items() if name.rpartition("/")[2] in ("epoch", "step"))


@router.get(
    "/{job_id}/spectrum", response_model=SpectrumAnswer, responses={200: {"content": {CSV: {}, NPZ: {}, OCTETS: {}}}}
)
def read_spectrum(request: Request, job_id: str, session: SessionOf, caller: Reader) -> SpectrumAnswer | Response:
    """The kernel's spectrum; JSON, CSV or npz by Accept."""
    job = jobs.get_job(session, caller.tenant, job_id)
    spectrum = results.get_spectrum(session, job.id)
    media_type = best_media_type(request, (JSON, CSV, NPZ, OCTETS))
    if media_type == CSV:
        indices = range(len(spectrum.eigenvalues))
        return _csv(
            ("index", "eigenvalue", "label_energy"),
            zip(indices, spectrum.eigenvalues, spectrum.label_energy, strict=True),
        )
    if media_type != JSON:
        headers = {"Content-Disposition": f'attachment; filename="{job.id}.npz"'}
        return Response(_npz(spectrum), headers=headers, media_type=media_type)
    return SpectrumAnswer(
        eigenvalues=spectrum.eigenvalues, label_energy=spectrum.label_energy, summary=spectrum.summary
    )


@router.get("/{job_id}/checkpoints")
def list_checkpoints(job_id: str, session: SessionOf, caller: Reader) -> ListOf[CheckpointAnswer]:
    """The newest state of each phase, from which another attempt would go on."""
    job = jobs.get_job(session, caller.tenant, job_id)
    return list_of(results.list_checkpoints(session, job.id), CheckpointAnswer.of, has_more=False)


@router.get("/{job_id}/artifacts")
def list_artifacts(job_id: str, session: SessionOf, caller: Reader) -> ListOf[ArtifactAnswer]:
    """The files that the job left."""
    job = jobs.get_job(session, caller.tenant, job_id)
    return list_of(results.list_artifacts(session, job.id), ArtifactAnswer.of, has_more=False)


FileName = Annotated[str, Path(max_length=200, pattern=r"^[A-Za-z0-9_./-]+$")]
HTML, SVG, PNG = "text/html", "image/svg+xml", "image/png"


def _file(*media_types: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {"content": {media_type: {} for media_type in media_types}},
        206: {"description": "The range asked for."},
        304: {"description": "As held."},
    }


@router.head("/{job_id}/artifacts/{name:path}", include_in_schema=False)
@router.get("/{job_id}/artifacts/{name:path}", response_class=Response, responses=_file(OCTETS, HTML, SVG, PNG))
def read_artifact(
    request: Request, job_id: str, name: FileName, session: SessionOf, parts: PartsOf, caller: Reader
) -> Response:
    """One of the job's files."""
    job = jobs.get_job(session, caller.tenant, job_id)
    return _serve(request, parts, results.get_artifact(session, job.id, name))


@router.head("/{job_id}/plots/{name}", include_in_schema=False)
@router.get("/{job_id}/plots/{name}", response_class=Response, responses=_file(SVG, PNG))
def read_plot(
    request: Request,
    job_id: str,
    name: Annotated[str, Path(max_length=100, pattern=r"^[a-z_]+\.(svg|png)$", description="spectrum.svg and so on.")],
    session: SessionOf,
    parts: PartsOf,
    caller: Reader,
) -> Response:
    """A picture of the result: spectrum, curves, prompt, mapping, confusion; as .svg or .png."""
    job = jobs.get_job(session, caller.tenant, job_id)
    return _serve(request, parts, results.get_artifact(session, job.id, f"plots/{name}"))


@router.head("/{job_id}/report", include_in_schema=False)
@router.get("/{job_id}/report", response_class=Response, responses=_file(HTML))
def read_job_report(request: Request, job_id: str, session: SessionOf, parts: PartsOf, caller: Reader) -> Response:
    """The job's report, one HTML page."""
    job = jobs.get_job(session, caller.tenant, job_id)
    return _serve(request, parts, results.get_artifact(session, job.id, "report.html"))


def read_blob(parts: Parts, sha256: str, start: int, stop: int) -> bytes:
    """Bytes of a blob, in a transaction of their own: a slow client holds none."""
    with parts.database.session() as session:
        return parts.blobs.read(session, sha256, start, stop)


def _serve(request: Request, parts: Parts, artifact: StoredArtifact) -> Response:
    answer = content_response(
        request,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        media_type=artifact.media_type,
        read=partial(read_blob, parts, artifact.sha256),
    )
    answer.headers["Content-Security-Policy"] = _SANDBOX
    return answer


def _csv(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> Response:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return Response(text.getvalue(), media_type=CSV)


def _npz(spectrum: StoredSpectrum) -> bytes:
    import json

    import numpy as np  # only here: the gateway starts without it

    arrays: Mapping[str, Any] = {
        "eigenvalues": np.asarray(spectrum.eigenvalues, dtype=np.float64),
        "label_energy": np.asarray(spectrum.label_energy, dtype=np.float64),
        "summary": np.asarray(json.dumps(spectrum.summary)),
    }
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()
