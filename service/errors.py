"""What the service raises on purpose, and how a job can end.

Each class has a stable `code`; no HTTP status is known here.
"""

from typing import Final


class ServiceError(Exception):
    """The service refuses; `param` names the part of the request at fault, if one is."""

    code = "service_error"

    def __init__(self, detail: str, *, param: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.param = param


class ConfigurationError(ServiceError):
    """A setting is missing or does not fit the others."""

    code = "invalid_configuration"


class NotFound(ServiceError):
    """No such id, or another tenant's."""

    code = "not_found"


class TrainedBackboneMissing(NotFound):
    """A backbone `trained:<job>` that is not there: its job was deleted, has not succeeded, or trains none."""

    code = "trained_backbone_missing"


class Unauthenticated(ServiceError):
    """No API key, or one that is unknown, expired or revoked."""

    code = "unauthenticated"


class Forbidden(ServiceError):
    """The API key lacks the scope for this."""

    code = "forbidden"


class PayloadTooLarge(ServiceError):
    """More bytes than the limit; the message names both."""

    code = "payload_too_large"


class QuotaExceeded(ServiceError):
    """The tenant has used up what it may have at once."""

    code = "quota_exceeded"


class InvalidValue(ServiceError):
    """A value that the database cannot hold: a NUL character, or a number out of range."""

    code = "invalid_value"


class Conflict(ServiceError):
    """The request does not fit the present state of what it names."""

    code = "conflict"


class JobFinished(Conflict):
    """The job has ended already; its status never changes again."""

    code = "job_finished"


class JobNotFinished(Conflict):
    """Only a job that has ended can be deleted; cancel it first."""

    code = "job_not_finished"


class JobNotRetryable(Conflict):
    """Only a job that failed or was cancelled can be retried."""

    code = "job_not_retryable"


class DatasetInUse(Conflict):
    """A job that has not ended needs the dataset."""

    code = "dataset_in_use"


class DatasetNotReady(Conflict):
    """The dataset is still being validated."""

    code = "dataset_not_ready"


class BackboneInUse(Conflict):
    """A job that has not ended needs the backbone."""

    code = "backbone_in_use"


class AdapterInUse(Conflict):
    """An alias leads to the adapter."""

    code = "adapter_in_use"


class IdempotencyKeyReused(Conflict):
    """The Idempotency-Key was used before with another request."""

    code = "idempotency_key_reused"


class PartConflict(Conflict):
    """The upload has this part already, with other bytes."""

    code = "part_conflict"


class UploadIncomplete(Conflict):
    """Parts of the upload are missing."""

    code = "upload_incomplete"


class UploadCompleted(Conflict):
    """The upload is complete; no part of it can change."""

    code = "upload_completed"


class DigestMismatch(ServiceError):
    """The bytes that came are not those that were announced."""

    code = "digest_mismatch"


class WebhookDisabled(Conflict):
    """The receiver has answered that it is gone; nothing is sent to it any more."""

    code = "webhook_disabled"


class UrlNotAllowed(ServiceError):
    """A URL that the service does not call: not https, or not at a public address."""

    code = "url_not_allowed"


class TransientError(ServiceError):
    """Something the service stands on does not answer; the same request may succeed later."""

    code = "unavailable"


class DatabaseUnavailable(TransientError):
    """PostgreSQL does not answer."""

    code = "database_unavailable"


class BrokerUnavailable(TransientError):
    """The broker takes no messages; jobs wait in the database meanwhile."""

    code = "broker_unavailable"


class StorageUnavailable(TransientError):
    """The blob store cannot be read or written."""

    code = "storage_unavailable"


class DeviceBusy(TransientError):
    """The device has no room for another process."""

    code = "device_busy"


class RemoteUnavailable(TransientError):
    """A server outside the service does not answer, or not in time; `was_sent` where it may have got the request."""

    code = "remote_unavailable"

    def __init__(self, detail: str, *, param: str | None = None, was_sent: bool = True) -> None:
        super().__init__(detail, param=param)
        self.was_sent = was_sent


class Fenced(ServiceError):
    """This attempt no longer holds the job's lease; whatever it does now must not be written."""

    code = "fenced"


JOB_OUTCOMES: Final = {
    "worker_lost": "The worker died or was cut off; the job went on from its last checkpoint while attempts were left.",
    "worker_oom_killed": "The attempt was killed for memory; it was tried once more with half the batch.",
    "cuda_oom": "The accelerator ran out of memory; the job was tried once more with half the batch.",
    "timeout": "The job did not end before its deadline.",
    "progress_stalled": "The attempt made no progress within the deadline of its phase and was killed.",
    "interrupted": "The worker was told to stop; the attempt does not count and the job went back to the queue.",
    "internal_error": "A bug; the traceback is in the worker's log.",
}
"""Codes of an attempt or a failed job beside those of the classes here and in mr_core.errors."""

OUT_OF_MEMORY: Final = frozenset({"worker_oom_killed", "cuda_oom"})
RETRYABLE: Final = OUT_OF_MEMORY | {
    "worker_lost",
    "progress_stalled",
    DatabaseUnavailable.code,
    BrokerUnavailable.code,
    StorageUnavailable.code,
    DeviceBusy.code,
}
"""Infrastructure codes: the job is queued again while attempts are left (after an out-of-memory, once)."""
