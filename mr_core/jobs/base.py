"""The family's contract: what every job spec holds, and how it runs. Torch-free."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from mr_core.backbones.description import MINI_CLIP
from mr_core.registry import MethodSpec

if TYPE_CHECKING:
    from mr_core.jobs.context import JobContext
    from mr_core.jobs.outcome import JobOutcome

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Budget(MethodSpec):
    """What a job may spend."""

    max_seconds: float | None = Field(
        None, gt=0, description="Training stops after the epoch that passes it, and keeps the best adapter so far."
    )
    max_calls: int | None = Field(
        None,
        ge=1,
        description="Requests to a remote backbone. Training stops before the one that would exceed it, with enough "
        "left to evaluate the best adapter so far.",
    )
    max_images: int | None = Field(None, ge=1, description="The same for the images in them.")


class AroundBackbone(MethodSpec):
    """What the kinds share that begin with a backbone of the client's choice."""

    backbone: Identifier = Field(
        MINI_CLIP,
        description="builtin/mini-clip, timm:<name>, open_clip:<arch>/<tag>, torchvision:<name>/<weights>, bb_..., "
        "trained:<train_source job>, random:<any of these>, or remote:<name>, which only answers.",
    )


class JobSpec(MethodSpec, ABC):
    """All that determines a job's result. The same JSON is posted, queued, stored and shipped with the adapter."""

    is_part: ClassVar[bool] = False  # only ever a part of another job: no client can ask for it
    unit: ClassVar[str] = "job"  # what the progress of a job counts its parts of this kind as
    leaves_adapter: ClassVar[bool] = False
    leaves_backbone: ClassVar[bool] = False

    kind: str
    dataset: Identifier = Field(description="Id of an uploaded dataset (ds_...).")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto is gpu where a gpu worker is alive.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of every random choice.")
    budget: Budget = Budget()
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=16, description="The client's own labels; not interpreted."
    )

    @model_validator(mode="after")
    def _bfloat16_is_the_cpus(self) -> Self:
        if self.device == "gpu" and getattr(self, "precision", "float32") == "bfloat16":
            raise ValueError("precision is 'bfloat16', which is computed on CPU, and device is 'gpu'")
        return self

    @classmethod
    def parse(cls, value: Any) -> JobSpec:
        """The spec of any kind, parts among them, from a dict or JSON; pydantic's ValidationError where it is none."""
        from pydantic import TypeAdapter

        from mr_core.jobs import JOB_KINDS, PART_KINDS
        from mr_core.registry import tagged_union

        adapter: TypeAdapter[JobSpec] = TypeAdapter(tagged_union(JOB_KINDS | PART_KINDS))
        return adapter.validate_json(value) if isinstance(value, str | bytes) else adapter.validate_python(value)

    @abstractmethod
    def run(self, context: JobContext) -> JobOutcome:
        """Do the job; mr_core's errors where it cannot be done as asked, JobCancelled where the observer says so."""
