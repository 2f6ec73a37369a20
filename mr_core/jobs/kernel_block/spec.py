"""A part of a large diagnosis: the Jacobian rows of some of its samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mr_core.jobs.base import JobSpec
from mr_core.jobs.diagnose.spec import OnSubsample

if TYPE_CHECKING:
    from mr_core.jobs.context import JobContext
    from mr_core.jobs.outcome import JobOutcome


class KernelBlockSpec(OnSubsample, JobSpec):
    """The rows of one stretch of a diagnosis' samples, as a file for that diagnosis."""

    is_part: ClassVar[bool] = True
    unit: ClassVar[str] = "block"

    kind: Literal["kernel_block"] = "kernel_block"
    start: int = Field(ge=0, description="The first sample of the stretch.")
    stop: int = Field(gt=0, description="The first sample after it.")

    def run(self, context: JobContext) -> JobOutcome:
        from mr_core.jobs.kernel_block.run import kernel_block

        return kernel_block(self, context)
