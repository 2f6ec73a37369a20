"""Runs a job's spec with mr_core on its tenant's dataset, backbones and adapters. Imports torch."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sqlalchemy.orm import Session

from mr_core.adapter_file import CONFIG, WEIGHTS, read_adapter
from mr_core.arithmetic import whole_float32
from mr_core.datasets.dataset import ImageDataset
from mr_core.errors import AdapterError, DatasetError
from mr_core.jobs.base import JobSpec
from mr_core.jobs.context import JobContext
from service import adapters, datasets, results
from service.attempts import Claim
from service.blobs import Blobs
from service.errors import NotFound
from service.models import Dataset
from service.session import Database
from service.settings import Settings
from worker.backbones import TenantBackbones
from worker.features import TenantFeatures
from worker.observer import DatabaseObserver
from worker.publishing import publish, store_file, store_weights
from worker.studies import StoredStudies
from worker.sub_jobs import QueuedSubJobs


def execute(
    claim: Claim,
    database: Database,
    blobs: Blobs,
    *,
    observer: DatabaseObserver,
    device: str,
    scratch: Path,
    settings: Settings,
) -> Callable[[Session], object]:
    """Do the job; what publishes its outcome in a transaction."""
    torch.set_num_threads(int(claim.environment.get("threads", 0)) or torch.get_num_threads())
    spec = JobSpec.parse(claim.spec)
    if claim.batch_divisor > 1:
        observer.message(
            f"an earlier attempt ran out of memory: this one takes 1/{claim.batch_divisor} as many images a pass, "
            "so its sums round differently from those of an undisturbed run",
            level="warning",
        )
    dataset = _ready_dataset(database, claim, spec.dataset)
    backbones = TenantBackbones(database, blobs, settings, tenant=claim.tenant, seed=spec.seed)
    assert dataset.pack_sha256 is not None
    with blobs.local_path(dataset.pack_sha256) as pack, whole_float32():
        outcome = spec.run(
            JobContext(
                dataset=ImageDataset.open(pack, sha256=dataset.sha256),
                load_backbone=backbones.load,
                scratch=scratch,
                observer=observer,
                device=torch.device(device),
                batch_divisor=claim.batch_divisor,
                features=TenantFeatures(
                    database,
                    blobs,
                    tenant=claim.tenant,
                    dataset_sha256=dataset.sha256,
                    max_bytes=settings.feature_cache_bytes,
                ),
                sub_jobs=QueuedSubJobs(database, blobs, claim),
                studies=StoredStudies(database, claim.job_id),
                load_ranking=partial(_ranking, database, claim, dataset.id),
                adapter=_unpacked_adapter(database, blobs, claim, getattr(spec, "adapter", None), scratch),
            )
        )
    observer.phase("publishing")
    weights, file = store_weights(blobs, outcome), store_file(blobs, outcome)
    return lambda session: publish(session, blobs, claim, outcome, weights=weights, file=file)


def _ready_dataset(database: Database, claim: Claim, dataset_id: str) -> Dataset:
    try:
        with database.session() as session:
            return datasets.require_ready(session, claim.tenant, dataset_id)
    except NotFound as error:
        raise DatasetError(f"there is no dataset {dataset_id}", param="dataset") from error


def _ranking(database: Database, claim: Claim, dataset_id: str, job_id: str) -> Mapping[str, Any]:
    with database.session() as session:
        return results.get_ranking(session, claim.tenant, job_id, dataset_id=dataset_id)


def _unpacked_adapter(
    database: Database, blobs: Blobs, claim: Claim, adapter_id: str | None, scratch: Path
) -> Path | None:
    if adapter_id is None:
        return None
    try:
        with database.session() as session:
            content = read_adapter(blobs.read(session, adapters.get(session, claim.tenant, adapter_id).sha256))
    except NotFound as error:
        raise AdapterError(f"there is no adapter {adapter_id}", param="adapter") from error
    folder = scratch / "adapter"
    folder.mkdir()
    (folder / CONFIG).write_bytes(content.config)
    (folder / WEIGHTS).write_bytes(content.weights)
    return folder
