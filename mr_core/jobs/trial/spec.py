"""A part of a search: one adapter trained to see how far it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from mr_core.jobs.base import JobSpec
from mr_core.jobs.reprogram.spec import TrainsAdapter

if TYPE_CHECKING:
    from mr_core.jobs.context import JobContext
    from mr_core.jobs.outcome import JobOutcome


class TrialSpec(TrainsAdapter, JobSpec):
    """Train as `reprogram` does and say what validation images think of it; the test split stays untouched."""

    is_part: ClassVar[bool] = True
    kind: Literal["trial"] = "trial"

    def run(self, context: JobContext) -> JobOutcome:
        from mr_core.jobs.trial.run import trial

        return trial(self, context)
