"""Jobs: submit, read, list, cancel, retry, delete."""

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.dependencies import PageOf, Parts, PartsOf, Reader, SessionOf, Writer, is_storable
from api.errors import InvalidRequest
from api.feasibility import check_feasible
from api.responses import JobAnswer, JobDetail, ListOf, list_of
from mr_core.job_spec import JOB_KINDS, AnyJobSpec, JobSpec
from service import datasets, events, jobs, quotas, workers
from service.keys import Caller
from service.models import Dataset

if TYPE_CHECKING:
    from service.queue import Queue  # Celery, which the gateway starts without

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

Status = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
_METADATA = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
_METADATA_PARAMETER = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "description": "metadata[key]=value; several have to fit all.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


@dataclass(frozen=True)
class CheckedJob:
    """What a spec that can be submitted leads to."""

    spec: dict[str, Any]
    dataset: Dataset
    queue: "Queue"


class DryRun(BaseModel):
    """A job that could be submitted: its spec with every default filled in."""

    valid: Literal[True] = True
    spec: dict[str, Any]
    queue: str


@router.post(
    "",
    status_code=201,
    response_model=JobAnswer,
    responses={200: {"model": DryRun, "description": "With dry_run: the job could be submitted."}},
)
def create_job(
    spec: Annotated[AnyJobSpec, Body()],
    response: Response,
    session: SessionOf,
    parts: PartsOf,
    caller: Writer,
    dry_run: Annotated[bool, Query(description="Check only; nothing is kept.")] = False,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> JobAnswer | JSONResponse:
    """Submit a job. What the spec, the dataset and the known backbones show to be impossible is refused here.

    With an Idempotency-Key that was used before for the same spec, the job of that time.
    """
    checked = check_job(session, caller, spec)
    if dry_run:
        return JSONResponse(DryRun(spec=checked.spec, queue=checked.queue).model_dump(mode="json"))
    job = jobs.create_job(
        session,
        tenant=caller.tenant,
        kind=spec.kind,
        spec=checked.spec,
        queue=checked.queue,
        dataset_id=checked.dataset.id,
        metadata=spec.metadata,
        max_attempts=parts.settings.max_attempts,
        idempotency_key=idempotency_key,
        max_unfinished=parts.settings.max_unfinished_jobs,
        require_room=partial(_require_room, session, parts, caller),
        key_id=caller.key_id,
    )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobAnswer.of(job)


async def metadata_filter(request: Request) -> dict[str, str]:
    """What `metadata[key]=value` asks for."""
    found = {}
    for name, value in request.query_params.multi_items():
        match = _METADATA.fullmatch(name)
        if match is not None:
            found[match[1]] = value
        elif name.startswith("metadata"):
            raise InvalidRequest(f"found {name!r}, expected metadata[key]=value", param=name)
    return found


@router.get("", openapi_extra={"parameters": [_METADATA_PARAMETER]})
def list_jobs(
    session: SessionOf,
    caller: Reader,
    page: PageOf,
    metadata: Annotated[dict[str, str], Depends(metadata_filter)],
    status: Annotated[Status | None, Query()] = None,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    dataset: Annotated[str | None, Query(max_length=64)] = None,
    parent: Annotated[str | None, Query(max_length=64, description="Its sub-jobs, which are not listed else.")] = None,
) -> ListOf[JobAnswer]:
    """The tenant's jobs that fit every filter, newest first."""
    rows, has_more = jobs.list_jobs(
        session,
        caller.tenant,
        status=status,
        kind=kind,
        dataset=dataset,
        parent=parent,
        metadata=metadata,
        after=page.after,
        limit=page.limit,
    )
    return list_of(rows, JobAnswer.of, has_more=has_more)


@router.get("/{job_id}")
def read_job(job_id: str, session: SessionOf, caller: Reader) -> JobDetail:
    """A job as it is now."""
    job = jobs.get_job(session, caller.tenant, job_id)
    return JobDetail.with_transitions(job, events.list_events(session, job.id, type="status"))


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(job_id: str, session: SessionOf, caller: Writer) -> JobAnswer:
    """Stop a job: at once while it is queued, within seconds while it runs; 409 once it has ended."""
    return JobAnswer.of(jobs.request_cancel(session, caller.tenant, job_id))


@router.post("/{job_id}/retry", status_code=201)
def retry_job(job_id: str, response: Response, session: SessionOf, parts: PartsOf, caller: Writer) -> JobAnswer:
    """A new job with the spec of one that failed or was cancelled; `retry_of` names the old one."""
    job = jobs.retry(
        session,
        caller.tenant,
        job_id,
        max_unfinished=parts.settings.max_unfinished_jobs,
        require_room=partial(_require_room, session, parts, caller),
        key_id=caller.key_id,
    )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobAnswer.of(job)


@router.delete("/{job_id}", status_code=204)
def delete_job(job_id: str, session: SessionOf, caller: Writer) -> None:
    """Forget an ended job with its events, artifacts and the backbone that it has trained; its adapter stays.

    409 while a job that has not ended names the backbone.
    """
    jobs.delete(session, caller.tenant, job_id)


def check_job(session: Session, caller: Caller, spec: JobSpec) -> CheckedJob:
    """The job that this spec would make; the error that a POST answers with where it would make none."""
    stored = spec.model_dump(mode="json")
    _check_storable(stored)
    dataset = datasets.require_ready(session, caller.tenant, spec.dataset)
    check_feasible(session, caller.tenant, spec, dataset)
    return CheckedJob(stored, dataset, _queue_of(session, stored))


def _queue_of(session: Session, stored: dict[str, Any]) -> Literal["gpu", "cpu", "io"]:
    return workers.choose_queue(session, stored["device"], precision=stored.get("precision", "float32"))


def _require_room(session: Session, parts: Parts, caller: Caller, kind: str) -> None:
    if JOB_KINDS[kind].leaves_adapter:
        quotas.require_room(session, caller.tenant, "adapters", parts.settings)
    if JOB_KINDS[kind].leaves_backbone:
        quotas.require_room(session, caller.tenant, "backbones", parts.settings)


def _check_storable(value: Any, path: str = "") -> None:
    """InvalidRequest naming the first text that PostgreSQL would not take."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_storable(key, f"{path}.{key}".lstrip("."))
            _check_storable(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for n, item in enumerate(value):
            _check_storable(item, f"{path}.{n}".lstrip("."))
    elif isinstance(value, str) and not is_storable(value):
        raise InvalidRequest(f"{path!r} holds a NUL character or half a surrogate pair", param=path)
