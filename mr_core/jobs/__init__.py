"""Job kinds: what a client can ask for, one folder each."""

from typing import TYPE_CHECKING

from mr_core.jobs.base import JobSpec
from mr_core.registry import discover, tagged_union

JOB_KINDS = discover(__name__, JobSpec)
if TYPE_CHECKING:
    AnyJobSpec = JobSpec
else:
    AnyJobSpec = tagged_union(JOB_KINDS)
