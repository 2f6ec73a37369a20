"""What a job would take, before it is submitted."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.dependencies import Reader, SessionOf
from api.feasibility import mini_clip_config
from api.jobs import check_job
from mr_core.backbones.description import MINI_CLIP, RANDOM_PREFIX, BackboneDescription
from mr_core.backbones.identifiers import describe
from mr_core.errors import BackboneError
from mr_core.job_spec import AnyJobSpec, JobSpec
from mr_core.jobs.train_source.spec import TrainSourceSpec
from service import adapters, backbones
from service.errors import NotFound
from service.estimates import estimate
from service.models import Dataset

router = APIRouter(prefix="/v1/estimates", tags=["estimates"])

_FLOAT_BYTES = 4
_TRAINED_COPIES = (
    3  # half of what training holds: weights, gradients, the optimiser's two, the best so far, a checkpoint
)


class Basis(BaseModel):
    """What the estimate goes by: seconds = start_s + images / images_per_second."""

    source: Literal["same_backbone", "same_family", "same_device", "published"] = Field(
        description="Recorded runs of this tenant of the same kind on the same queue (of this backbone, of one of its "
        "library and name, of any), or a figure measured on another machine."
    )
    runs: int = Field(description="How many, the nearest in size.")
    images: int | None = Field(description="To pass through the backbone; null for a kind that is not counted so.")
    images_per_second: float | None
    start_s: float = Field(description="Beside the work: start of the process, storing the result.")


class EstimateAnswer(BaseModel):
    """What a job would take, on the queue that it would go to."""

    seconds: float = Field(description="Wall time of the job, its wait in the queue aside.")
    seconds_interval: tuple[float, float] = Field(description="Holds 90 % of such jobs.")
    memory_bytes: int = Field(description="Of the machine, not of an accelerator.")
    confidence: Literal["high", "medium", "low"]
    based_on: Basis
    queue: str
    queue_wait_s: float | None = Field(description="Null while no worker serves the queue.")


@router.post("")
def estimate_job(spec: Annotated[AnyJobSpec, Body()], session: SessionOf, caller: Reader) -> EstimateAnswer:
    """Seconds and memory of a job, from the tenant's recorded runs; checked as a job is, and nothing is kept."""
    checked = check_job(session, caller, spec)
    backbone_id = adapters.backbone_named(session, caller.tenant, checked.spec)

    def described(backbone_id: str) -> BackboneDescription | None:
        try:
            return _description(session, caller.tenant, backbone_id)
        except (NotFound, BackboneError):
            return None  # deleted since a run or an adapter named it

    found = estimate(
        session,
        caller.tenant,
        checked.spec,
        dataset=checked.dataset,
        queue=checked.queue,
        backbone=None if backbone_id is None else described(backbone_id),
        weights_bytes=_held_bytes(session, caller.tenant, spec, checked.dataset, backbone_id),
        describe=described,
    )
    return EstimateAnswer(
        seconds=round(found.seconds, 1),
        seconds_interval=(round(found.seconds_interval[0], 1), round(found.seconds_interval[1], 1)),
        memory_bytes=found.memory_bytes,
        confidence=found.confidence,
        based_on=Basis(**vars(found.basis)),
        queue=checked.queue,
        queue_wait_s=None if found.queue_wait_s is None else round(found.queue_wait_s, 1),
    )


def _description(session: Session, tenant: str, backbone_id: str) -> BackboneDescription:
    """The description of a backbone, of a random one that of what it stands beside."""
    if backbone_id.startswith(adapters.SCRATCH_PREFIX):
        kind = backbone_id.removeprefix(adapters.SCRATCH_PREFIX).partition("/")[0]
        return BackboneDescription(id=backbone_id, library="builtin", architecture=kind)
    trained_id = backbone_id.removeprefix(RANDOM_PREFIX)
    if backbones.is_registered(trained_id):
        return backbones.describe(backbones.get(session, tenant, trained_id))
    return describe(trained_id)


def _held_bytes(session: Session, tenant: str, spec: JobSpec, dataset: Dataset, backbone_id: str | None) -> int | None:
    if isinstance(spec, TrainSourceSpec) and spec.pixels is not None:
        return _TRAINED_COPIES * _FLOAT_BYTES * spec.architecture.n_parameters(spec.pixels, len(dataset.classes))
    return None if backbone_id is None else _weights_bytes(session, tenant, backbone_id)


def _weights_bytes(session: Session, tenant: str, backbone_id: str) -> int | None:
    trained_id = backbone_id.removeprefix(RANDOM_PREFIX)
    if trained_id == MINI_CLIP:
        return int(mini_clip_config()["parameters"]) * _FLOAT_BYTES
    try:
        return backbones.get(session, tenant, trained_id).size_bytes
    except NotFound:  # of a hub, or deleted
        return None
