"""Tables. PostgreSQL is the truth about every job; the broker only rings."""

from datetime import date, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JOB_STATUSES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")
TERMINAL_STATUSES = ("succeeded", "failed", "cancelled")


class Base(DeclarativeBase):
    """All tables; times are the database's, with time zone."""

    type_annotation_map: ClassVar = {
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text),
        float: Double,
        bytes: LargeBinary,
    }


class ApiKey(Base):
    """A caller. Only the SHA-256 of the secret is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    name: Mapped[str]
    secret_sha256: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Blob(Base):
    """Immutable bytes under their SHA-256: in `blob_chunks`, or in the blob store."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    place: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("place IN ('database', 'store')", name="blob_place"),)


class BlobChunk(Base):
    """One MiB of a blob kept in the database; the last is shorter."""

    __tablename__ = "blob_chunks"

    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256", ondelete="CASCADE"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[bytes]


class Dataset(Base):
    """An uploaded dataset; `pack_sha256` is the validated, re-encoded form that jobs read."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    modality: Mapped[str]
    status: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    pack_sha256: Mapped[str | None]
    classes: Mapped[list[str]]
    splits: Mapped[dict[str, Any]]
    report: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("status IN ('validating', 'ready', 'invalid')", name="dataset_status"),)


class RegisteredBackbone(Base):
    """A source model, uploaded, trained by a job or remote: its description as mr_core reads it, and its weights' blob.

    A remote one is `remote:<name>`, a name of the tenant's own, and has no blob: its digest is of the description.
    """

    __tablename__ = "backbones"

    tenant: Mapped[str] = mapped_column(primary_key=True, index=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    description: Mapped[dict[str, Any]]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    parameters: Mapped[int] = mapped_column(BigInteger)
    outputs: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(  # that has trained it, and takes it along
        ForeignKey("jobs.id", name="backbones_job", ondelete="CASCADE"), unique=True
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Job(Base):
    """A job; while it is queued the row is also its own outbox entry (`next_dispatch_at`)."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    kind: Mapped[str]
    spec: Mapped[dict[str, Any]]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    dataset_id: Mapped[str | None]
    retry_of: Mapped[str | None]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", name="jobs_parent", ondelete="CASCADE"))
    part: Mapped[str | None]  # which of its parent's sub-jobs it is
    idempotency_key: Mapped[str | None]
    key_id: Mapped[str | None]  # whose usage it is
    status: Mapped[str] = mapped_column(server_default="queued")
    phase: Mapped[str | None]
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    queue: Mapped[str]
    priority: Mapped[int] = mapped_column(server_default="0")
    attempt: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int] = mapped_column(server_default="3")
    attempts: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))
    environment: Mapped[dict[str, Any] | None]  # threads and kernel path, fixed at the first claim
    fence: Mapped[int] = mapped_column(BigInteger, server_default="0")
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    progress_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    next_dispatch_at: Mapped[datetime | None]
    dispatch_count: Mapped[int] = mapped_column(server_default="0")
    deadline_at: Mapped[datetime | None]
    event_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(f"status IN {JOB_STATUSES}", name="job_status"),
        CheckConstraint("status <> 'running' OR lease_until IS NOT NULL", name="job_running_has_lease"),
        Index("jobs_by_tenant", "tenant", "created_at", "id"),
        Index("jobs_by_metadata", "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
        Index("jobs_by_idempotency_key", "tenant", "idempotency_key", unique=True),
        Index("jobs_unfinished_by_dataset", "dataset_id", postgresql_where=text(f"status NOT IN {TERMINAL_STATUSES}")),
        Index("jobs_to_dispatch", "queue", "next_dispatch_at", postgresql_where=text("status = 'queued'")),
        Index("jobs_by_parent", "parent_id", "part", unique=True),
        Index("jobs_waiting", "id", postgresql_where=text("status = 'queued' AND next_dispatch_at IS NULL")),
        Index("jobs_leased", "lease_until", postgresql_where=text("status IN ('running', 'cancelling')")),
    )


class Event(Base):
    """What happened to a job, in order and without gaps (`seq` is handed out by the job's row)."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    type: Mapped[str]
    level: Mapped[str] = mapped_column(server_default="info")
    data: Mapped[dict[str, Any]]


class StoredCheckpoint(Base):
    """The newest state of a named phase of a job, from which a later attempt goes on."""

    __tablename__ = "checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[dict[str, Any]]
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class StoredArtifact(Base):
    """A file that a job left: a plot or its report."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    media_type: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class StoredSpectrum(Base):
    """The spectrum of a job's kernel: eigenvalues descending, cumulative label energy."""

    __tablename__ = "spectra"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    eigenvalues: Mapped[list[float]] = mapped_column(ARRAY(Double))
    label_energy: Mapped[list[float]] = mapped_column(ARRAY(Double))
    summary: Mapped[dict[str, Any]]


class StoredAdapter(Base):
    """A trained adapter; its bytes never change, so `sha256` is its ETag."""

    __tablename__ = "adapters"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(index=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), unique=True)
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    config: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class FeatureSet(Base):
    """Outputs of a frozen backbone for all images of a split, kept for other jobs of the tenant."""

    __tablename__ = "feature_sets"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    dataset_sha256: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("feature_sets_by_use", "last_used_at"),
        Index("feature_sets_by_dataset", "tenant", "dataset_sha256"),
    )


class Upload(Base):
    """A file that comes in parts; complete once `dataset_id` says what became of it."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    purpose: Mapped[str]
    name: Mapped[str]
    modality: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    file_digest: Mapped[str | None]  # SHA-256 of the whole, where the client has announced it
    part_bytes: Mapped[int] = mapped_column(BigInteger)
    dataset_id: Mapped[str | None]  # no foreign key: a dataset may be deleted before the record of its upload
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("purpose IN ('dataset')", name="upload_purpose"),
        Index("uploads_by_tenant", "tenant", "created_at", "id"),
        Index("uploads_by_expiry", "expires_at"),
    )


class UploadPart(Base):
    """A part of an upload that has arrived, as a blob; the first has number 1."""

    __tablename__ = "upload_parts"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class AdapterAlias(Base):
    """A name of the tenant's own for an adapter, which can be moved to another."""

    __tablename__ = "adapter_aliases"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    adapter_id: Mapped[str] = mapped_column(ForeignKey("adapters.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WorkerHeartbeat(Base):
    """A worker that is alive: which queue it serves and which device it owns."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    queue: Mapped[str]
    device: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class Webhook(Base):
    """Where a tenant is told of its jobs. The secret is kept as it is, since every delivery is signed with it."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    url: Mapped[str]
    events: Mapped[list[str]]
    description: Mapped[str | None]
    secret: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]

    __table_args__ = (Index("webhooks_by_tenant", "tenant", "created_at", "id"),)


class WebhookDelivery(Base):
    """One message to one webhook: an outbox entry until it has ended, its record afterwards."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[str]
    job_id: Mapped[str | None]  # no foreign key: a job may be deleted before it is told of
    body: Mapped[str]  # the bytes that are signed, the same at every attempt
    status: Mapped[str] = mapped_column(server_default="pending")
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_attempt_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    lease_until: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime | None]
    response_status: Mapped[int | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('pending', 'succeeded', 'failed')", name="webhook_delivery_status"),
        CheckConstraint("status <> 'pending' OR next_attempt_at IS NOT NULL", name="webhook_delivery_is_due"),
        Index("webhook_deliveries_listed", "webhook_id", "created_at", "id"),
        Index("webhook_deliveries_due", "webhook_id", "next_attempt_at", postgresql_where=text("status = 'pending'")),
        Index("webhook_deliveries_leased", "lease_until", postgresql_where=text("lease_until IS NOT NULL")),
        Index("webhook_deliveries_ended", "finished_at", postgresql_where=text("status <> 'pending'")),
    )


class DailyUsage(Base):
    """What one key used on one day (UTC); gateways add to it every few seconds."""

    __tablename__ = "daily_usage"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger, server_default="0")
    uploads: Mapped[int] = mapped_column(BigInteger, server_default="0")
    uploaded_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    predictions: Mapped[int] = mapped_column(BigInteger, server_default="0")
    predicted_images: Mapped[int] = mapped_column(BigInteger, server_default="0")


class EndedAttempt(Base):
    """An attempt that has ended: what it took, and of what. Stays when its job is deleted."""

    __tablename__ = "ended_attempts"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    key_id: Mapped[str | None]
    kind: Mapped[str]
    queue: Mapped[str]
    backbone: Mapped[str | None]
    outcome: Mapped[str]
    seconds: Mapped[float]  # wall time, start of the process included
    work_s: Mapped[float | None]  # as the result tells it
    images: Mapped[int | None] = mapped_column(BigInteger)  # passed through backbones
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    ended_at: Mapped[datetime]

    __table_args__ = (Index("ended_attempts_by_tenant", "tenant", "ended_at"),)
