"""Validates an upload in a process that can be killed: strangers' bytes are decoded under bounds, without torch."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy.orm import Session

from mr_core.datasets.report import DatasetReport
from mr_core.datasets.resources import limit_resources
from mr_core.datasets.validate import pack_archive
from mr_core.errors import DatasetError
from service import attempts, datasets
from service.attempts import Claim
from service.blobs import BlobInfo, Blobs
from service.session import Database
from worker.observer import DatabaseObserver

ADDRESS_SPACE_BYTES: Final = 3 * 2**30
"""What decoding may map beyond what the process has mapped already."""
CPU_S: Final = 3600
"""CPU time of a whole archive; over it the kernel kills the process."""


def validate(
    claim: Claim, database: Database, blobs: Blobs, *, observer: DatabaseObserver, scratch: Path
) -> Callable[[Session], object]:
    """Pack the upload; what makes the dataset ready or invalid, and ends the job, in one transaction."""
    observer.phase("validating")
    dataset_id = claim.dataset_id
    assert dataset_id is not None
    with database.session() as session:
        sha256 = datasets.get(session, claim.tenant, dataset_id).sha256
    pack = scratch / "pack.zip"
    limit_resources(address_space_bytes=_mapped_bytes() + ADDRESS_SPACE_BYTES, cpu_seconds=_used_cpu_s() + CPU_S)
    try:
        with blobs.local_path(sha256) as archive:
            report = pack_archive(
                archive, pack, on_progress=lambda done, total: observer.progress(done, total, unit="image")
            )
    except DatasetError as error:
        refusal = error
        return lambda session: _store_refusal(session, claim, dataset_id, refusal)
    stored = blobs.put_file(pack) if report.status == "ready" else None
    return lambda session: _store_report(session, claim, dataset_id, report, stored)


def _store_refusal(session: Session, claim: Claim, dataset_id: str, refusal: DatasetError) -> None:
    attempts.finish_succeeded(session, claim, {"status": "invalid"})
    datasets.set_invalid(session, dataset_id, code=refusal.code, detail=refusal.detail)


def _store_report(
    session: Session, claim: Claim, dataset_id: str, report: DatasetReport, pack: BlobInfo | None
) -> None:
    attempts.finish_succeeded(session, claim, {"status": report.status})
    shown = report.model_dump(mode="json")
    if pack is not None:
        datasets.set_ready(
            session,
            dataset_id,
            pack_sha256=pack.sha256,
            classes=report.classes,
            splits={str(split): n for split, n in report.splits.items()},
            report=shown,
        )
        return
    assert report.error is not None
    datasets.set_invalid(session, dataset_id, code=report.error.code, detail=report.error.detail, report=shown)


def _mapped_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _used_cpu_s() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int(usage.ru_utime + usage.ru_stime) + 1
