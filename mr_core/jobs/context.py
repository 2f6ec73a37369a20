"""What a job runs with: everything that its spec does not determine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mr_core.backbones.backbone import Backbone
from mr_core.datasets.dataset import ImageDataset
from mr_core.features import FeatureCache
from mr_core.observer import Observer
from mr_core.sub_jobs import SubJobs


@dataclass(frozen=True)
class JobContext:
    """The dataset, how to load a backbone or an earlier adapter by id, where to compute, whom to tell."""

    dataset: ImageDataset
    load_backbone: Callable[[str], Backbone]
    scratch: Path  # a folder that the caller deletes afterwards; decoded images go there
    observer: Observer = field(default_factory=Observer)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    adapter: Path | None = None  # the unpacked adapter that a spec names
    sub_jobs: SubJobs = field(default_factory=SubJobs)
    features: FeatureCache = field(default_factory=FeatureCache)
    batch_divisor: int = 1  # images a pass, divided by this after an attempt ran out of memory
