"""Judge an adapter on another dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mr_core.jobs.base import Identifier, JobSpec

if TYPE_CHECKING:
    from mr_core.jobs.context import JobContext
    from mr_core.jobs.outcome import JobOutcome


class EvaluateSpec(JobSpec):
    """Accuracy, calibration, per-class scores and confusion of an adapter on a split of any dataset of its classes."""

    kind: Literal["evaluate"] = "evaluate"
    adapter: Identifier = Field(description="Id of the adapter (ad_...); its backbone is the one it was trained on.")
    split: Literal["test", "train"] = Field("test", description="Which images of the dataset.")

    def run(self, context: JobContext) -> JobOutcome:
        from mr_core.jobs.evaluate.run import run_evaluation

        return run_evaluation(self, context)
