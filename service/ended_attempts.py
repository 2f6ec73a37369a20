"""A row for each attempt that has ended, written by the transaction that ends it: what usage and estimates go by."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from service.adapters import backbone_named
from service.models import Dataset, EndedAttempt, Job
from service.workload import images_passed


def record(session: Session, job: Job, attempt: Mapping[str, Any], result: Mapping[str, Any] | None) -> None:
    """Note an ended attempt of a job whose row the caller has locked; `result` is that of one that succeeded."""
    started_at, ended_at = (datetime.fromisoformat(attempt[name]) for name in ("started_at", "ended_at"))
    timing = (result or {}).get("timing") or {}
    session.execute(
        insert(EndedAttempt).values(
            job_id=job.id,
            number=attempt["number"],
            tenant=job.tenant,
            key_id=job.key_id,
            kind=job.kind,
            queue=job.queue,
            backbone=backbone_named(session, job.tenant, job.spec),
            outcome=attempt["outcome"],
            seconds=(ended_at - started_at).total_seconds(),
            work_s=timing.get("seconds"),
            images=None if result is None else _images(session, job, result),
            peak_memory_bytes=attempt.get("peak_memory_bytes"),
            ended_at=ended_at,
        )
    )


def _images(session: Session, job: Job, result: Mapping[str, Any]) -> int | None:
    dataset = session.get(Dataset, job.dataset_id) if job.dataset_id is not None else None
    if dataset is None:
        return None
    epochs = (result.get("training") or {}).get("epochs")
    return images_passed(job.spec, splits=dataset.splits, n_classes=len(dataset.classes), epochs=epochs)
