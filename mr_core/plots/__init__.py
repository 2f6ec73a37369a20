"""Pictures of a result: pure functions from data to a figure, and the files a job keeps of them. Torch-free."""

from mr_core.plots.artifacts import (
    diagnose_artifacts,
    evaluate_artifacts,
    rank_artifacts,
    reprogram_artifacts,
    train_source_artifacts,
)
from mr_core.plots.figure import render

__all__ = [
    "diagnose_artifacts",
    "evaluate_artifacts",
    "rank_artifacts",
    "render",
    "reprogram_artifacts",
    "train_source_artifacts",
]
