"""What the API answers with, built from rows. A request body is a JobSpec."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from service.models import (
    AdapterAlias,
    ApiKey,
    Dataset,
    Event,
    Job,
    RegisteredBackbone,
    StoredAdapter,
    StoredArtifact,
    StoredCheckpoint,
    Upload,
    UploadPart,
    Webhook,
    WebhookDelivery,
)
from service.uploads import part_count

T = TypeVar("T", bound=BaseModel)
Row = TypeVar("Row")


class Failure(BaseModel):
    """Why something failed, after the fact."""

    code: str
    detail: str
    param: str | None = None


class ListOf(BaseModel, Generic[T]):
    """A page, newest first; the next one begins `after` its `last_id`."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None


def list_of(rows: Sequence[Row], answer: Callable[[Row], T], *, has_more: bool) -> ListOf[T]:
    """A page of rows."""
    data = [answer(row) for row in rows]
    ids = [getattr(item, "id", None) for item in data]
    return ListOf(data=data, has_more=has_more, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None)


class DatasetAnswer(BaseModel):
    """An uploaded dataset."""

    id: str
    name: str
    modality: str
    status: Literal["validating", "ready", "invalid"]
    classes: list[str]
    splits: dict[str, int]
    sha256: str = Field(description="Of the bytes uploaded.")
    size_bytes: int
    error: Failure | None
    created_at: datetime

    @classmethod
    def of(cls, row: Dataset) -> "DatasetAnswer":
        return cls(
            id=row.id,
            name=row.name,
            modality=row.modality,
            status=row.status,
            classes=row.classes,
            splits=row.splits,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            error=Failure(**row.error) if row.error else None,
            created_at=row.created_at,
        )


class PartAnswer(BaseModel):
    """A part of an upload that has arrived."""

    n: int
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, row: UploadPart) -> "PartAnswer":
        return cls(n=row.n, size_bytes=row.size_bytes, sha256=row.sha256)


class UploadAnswer(BaseModel):
    """A resumable upload."""

    id: str
    purpose: str
    name: str
    modality: str
    size_bytes: int
    sha256: str | None = Field(description="Of the whole, as announced.")
    part_bytes: int = Field(description="Of every part but the last, which has what is left.")
    parts: int = Field(description="They have the numbers 1 to this one.")
    status: Literal["open", "complete"]
    dataset: str | None = Field(description="What it has become.")
    created_at: datetime
    expires_at: datetime = Field(description="Moved on by every new part.")

    @classmethod
    def of(cls, row: Upload) -> "UploadAnswer":
        return cls(**upload_fields(row))


class UploadDetail(UploadAnswer):
    """A resumable upload, and the parts that have arrived."""

    received: list[PartAnswer]

    @classmethod
    def with_parts(cls, row: Upload, parts: Sequence[UploadPart]) -> "UploadDetail":
        return cls(**upload_fields(row), received=[PartAnswer.of(part) for part in parts])


def upload_fields(row: Upload) -> dict[str, Any]:
    """The fields of an UploadAnswer."""
    same = "id purpose name modality size_bytes part_bytes created_at expires_at"
    return {
        **{name: getattr(row, name) for name in same.split()},
        "sha256": row.file_digest,
        "parts": part_count(row),
        "status": "open" if row.dataset_id is None else "complete",
        "dataset": row.dataset_id,
    }


class BackboneAnswer(BaseModel):
    """A source model that jobs can name."""

    id: str
    name: str
    library: str
    architecture: str
    sha256: str | None
    size_bytes: int | None
    parameters: int
    outputs: dict[str, Any]
    preprocessing: dict[str, Any] | None
    classes: list[str] | None
    job: str | None = Field(description="That has trained it; it is deleted with that job.")
    created_at: datetime | None

    @classmethod
    def of(cls, row: RegisteredBackbone) -> "BackboneAnswer":
        return cls(
            id=row.id,
            name=row.name,
            library=row.description["library"],
            architecture=row.description["architecture"],
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            parameters=row.parameters,
            outputs=row.outputs,
            preprocessing=row.description.get("preprocessing"),
            classes=row.description.get("classes"),
            job=row.job_id,
            created_at=row.created_at,
        )


class Progress(BaseModel):
    """Where the present phase is."""

    step: int
    total: int
    unit: str | None = None
    percent: float
    eta_s: float | None = Field(None, description="At the pace of the phase so far.")


class JobAnswer(BaseModel):
    """A job as it is now."""

    id: str
    kind: str
    status: Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
    phase: str | None
    spec: dict[str, Any]
    metadata: dict[str, str]
    dataset: str | None
    queue: str
    retry_of: str | None
    parent: str | None
    progress: Progress | None
    attempt: int
    max_attempts: int
    attempts: list[dict[str, Any]]
    error: Failure | None
    result: dict[str, Any] | None
    cancel_requested_at: datetime | None
    deadline_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: Job) -> "JobAnswer":
        return cls(**job_fields(row))


class Transition(BaseModel):
    """A change of status."""

    status: str
    at: datetime


class JobDetail(JobAnswer):
    """A job as it is now, and how it came there."""

    transitions: list[Transition]

    @classmethod
    def with_transitions(cls, row: Job, changes: Sequence[Event]) -> "JobDetail":
        transitions = [Transition(status=event.data["status"], at=event.at) for event in changes]
        return cls(**job_fields(row), transitions=transitions)


def job_fields(row: Job) -> dict[str, Any]:
    """The fields of a JobAnswer."""
    same = (
        "id kind status phase spec queue retry_of attempt max_attempts attempts result "
        "cancel_requested_at deadline_at created_at started_at finished_at"
    )
    return {
        **{name: getattr(row, name) for name in same.split()},
        "metadata": row.metadata_,
        "dataset": row.dataset_id,
        "parent": row.parent_id,
        "progress": _progress(row.progress),
        "error": Failure(**row.error) if row.error else None,
    }


def _progress(stored: dict[str, Any] | None) -> Progress | None:
    if not stored or "step" not in stored:
        return None
    step, total = int(stored["step"]), int(stored["total"])
    percent = round(100 * step / total, 1) if total else 0.0
    return Progress(step=step, total=total, unit=stored.get("unit"), percent=percent, eta_s=stored.get("eta_s"))


class EventAnswer(BaseModel):
    """Something that happened to a job."""

    seq: int
    at: datetime
    type: str
    level: str
    data: dict[str, Any]

    @classmethod
    def of(cls, row: Event) -> "EventAnswer":
        return cls(seq=row.seq, at=row.at, type=row.type, level=row.level, data=row.data)


class CheckpointAnswer(BaseModel):
    """The newest state of a phase, from which an attempt would go on."""

    name: str
    step: int
    sha256: str
    created_at: datetime

    @classmethod
    def of(cls, row: StoredCheckpoint) -> "CheckpointAnswer":
        return cls(name=row.name, step=row.step, sha256=row.sha256, created_at=row.created_at)


class ArtifactAnswer(BaseModel):
    """A file that a job left."""

    name: str
    media_type: str
    sha256: str
    size_bytes: int
    url: str

    @classmethod
    def of(cls, row: StoredArtifact) -> "ArtifactAnswer":
        return cls(
            name=row.name,
            media_type=row.media_type,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            url=f"/v1/jobs/{row.job_id}/artifacts/{row.name}",
        )


class AdapterAnswer(BaseModel):
    """A trained adapter."""

    id: str
    job: str | None
    sha256: str
    size_bytes: int
    backbone: str | None
    classes: list[str]
    config: dict[str, Any] = Field(description="config.json, as it is in the adapter's file.")
    created_at: datetime

    @classmethod
    def of(cls, row: StoredAdapter) -> "AdapterAnswer":
        backbone = row.config.get("backbone")
        return cls(
            id=row.id,
            job=row.job_id,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            backbone=backbone.get("id") if isinstance(backbone, dict) else backbone,
            classes=row.config.get("classes", []),
            config=row.config,
            created_at=row.created_at,
        )


class AliasAnswer(BaseModel):
    """A name for an adapter."""

    name: str
    adapter: str
    created_at: datetime
    updated_at: datetime = Field(description="When it was last moved.")

    @classmethod
    def of(cls, row: AdapterAlias) -> "AliasAnswer":
        return cls(name=row.name, adapter=row.adapter_id, created_at=row.created_at, updated_at=row.updated_at)


class WebhookAnswer(BaseModel):
    """A webhook, without its secret."""

    id: str
    url: str
    events: list[str]
    description: str | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None

    @classmethod
    def of(cls, row: Webhook) -> "WebhookAnswer":
        return cls(
            id=row.id,
            url=row.url,
            events=row.events,
            description=row.description,
            created_at=row.created_at,
            disabled_at=row.disabled_at,
            disabled_reason=row.disabled_reason,
        )


class NewWebhookAnswer(WebhookAnswer):
    """A webhook that was just made; its secret is shown this once."""

    secret: str = Field(description="`whsec_` and the key of the signatures, in base 64.")


class DeliveryAnswer(BaseModel):
    """A message to a webhook."""

    id: str = Field(description="The header webhook-id, the same at every attempt.")
    webhook: str
    event: str
    job: str | None
    status: Literal["pending", "succeeded", "failed"]
    attempts: int = Field(description="Since it was queued, or last asked for again.")
    response_status: int | None = Field(description="What the receiver answered last; null where no answer came.")
    error: str | None = Field(description="Why the last attempt failed.")
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: WebhookDelivery) -> "DeliveryAnswer":
        return cls(
            id=row.id,
            webhook=row.webhook_id,
            event=row.event,
            job=row.job_id,
            status=row.status,
            attempts=row.attempts,
            response_status=row.response_status,
            error=row.error,
            last_attempt_at=row.last_attempt_at,
            next_attempt_at=row.next_attempt_at,
            created_at=row.created_at,
            finished_at=row.finished_at,
        )


class KeyAnswer(BaseModel):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: ApiKey) -> "KeyAnswer":
        return cls(
            id=row.id,
            name=row.name,
            scopes=row.scopes,
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )


class NewKeyAnswer(KeyAnswer):
    """A key that was just made; its secret is shown this once."""

    key: str
