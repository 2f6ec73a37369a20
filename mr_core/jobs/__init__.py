"""Job kinds, one folder each: what a client can ask for, and what such a job may be made of."""

from typing import TYPE_CHECKING

from mr_core.jobs.base import JobSpec
from mr_core.registry import discover, tagged_union

_KINDS = discover(__name__, JobSpec)
JOB_KINDS = {kind: spec for kind, spec in _KINDS.items() if not spec.is_part}
PART_KINDS = {kind: spec for kind, spec in _KINDS.items() if spec.is_part}
if TYPE_CHECKING:
    AnyJobSpec = JobSpec
else:
    AnyJobSpec = tagged_union(JOB_KINDS)
