"""Runs a job in this process: the whole library behind one call."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mr_core.arithmetic import whole_float32
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.loading import load_backbone
from mr_core.datasets.dataset import ImageDataset, open_dataset
from mr_core.errors import SpecError
from mr_core.jobs.base import JobSpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.outcome import JobOutcome
from mr_core.observer import Observer


def run(
    spec: JobSpec,
    dataset: ImageDataset | str | Path,
    *,
    observer: Observer | None = None,
    device: str = "cpu",
    weights: dict[str, Path] | None = None,
    adapter: Path | None = None,
    backbones: dict[str, Backbone] | None = None,
    rankings: Mapping[str, Mapping[str, Any]] | None = None,
) -> JobOutcome:
    """Do the job on a dataset or an archive of one, and return its outcome.

    `spec.dataset` is only a name here. `weights` gives safetensors files by backbone id, `backbones` those loaded
    beforehand, as a remote one is, `rankings` results of `rank` by a name of the caller's. Raises mr_core's errors;
    JobCancelled where the observer raises it.
    """

    def load(backbone_id: str) -> Backbone:
        if backbone_id in (backbones or {}):
            return (backbones or {})[backbone_id]
        return load_backbone(backbone_id, weights=(weights or {}).get(backbone_id), random_seed=spec.seed)

    def load_ranking(name: str) -> Mapping[str, Any]:
        if name not in (rankings or {}):
            raise SpecError(f"there is no ranking {name}", param="ranking")
        return (rankings or {})[name]

    with tempfile.TemporaryDirectory(prefix="mr-run-") as folder:
        opened = dataset if isinstance(dataset, ImageDataset) else open_dataset(Path(dataset), scratch=Path(folder))
        context = JobContext(
            dataset=opened,
            load_backbone=load,
            scratch=Path(folder),
            observer=observer or Observer(),
            device=torch.device(device),
            adapter=adapter,
            load_ranking=load_ranking,
        )
        with whole_float32():
            return spec.run(context)
