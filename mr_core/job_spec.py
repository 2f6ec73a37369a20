"""The one contract: what is posted, queued, stored, trained and shipped with the adapter. Torch-free."""

from mr_core.jobs import JOB_KINDS, PART_KINDS, AnyJobSpec
from mr_core.jobs.base import AroundBackbone, JobSpec

__all__ = ["JOB_KINDS", "PART_KINDS", "AnyJobSpec", "AroundBackbone", "JobSpec"]
