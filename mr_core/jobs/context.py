"""What a job runs with: everything that its spec does not determine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mr_core.backbones.backbone import Backbone
from mr_core.datasets.dataset import ImageDataset
from mr_core.errors import SpecError
from mr_core.features import FeatureCache
from mr_core.observer import Observer
from mr_core.studies import Studies
from mr_core.sub_jobs import SubJobs


def _no_rankings(job_id: str) -> Mapping[str, Any]:
    raise SpecError(f"there is no ranking {job_id}", param="ranking")


@dataclass(frozen=True)
class JobContext:
    """The dataset, how to load a backbone or an earlier adapter by id, where to compute, whom to tell."""

    dataset: ImageDataset
    load_backbone: Callable[[str], Backbone]
    scratch: Path  # a folder that the caller deletes afterwards; decoded images go there
    observer: Observer = field(default_factory=Observer)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    adapter: Path | None = None  # the unpacked adapter that a spec names
    load_ranking: Callable[[str], Mapping[str, Any]] = _no_rankings  # the result of a `rank`, by its id
    sub_jobs: SubJobs = field(default_factory=SubJobs)
    studies: Studies = field(default_factory=Studies)
    features: FeatureCache = field(default_factory=FeatureCache)
    batch_divisor: int = 1  # images a pass, divided by this after an attempt ran out of memory
