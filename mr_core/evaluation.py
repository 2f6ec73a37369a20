"""Predictions and what they are worth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mr_core.observer import Observer
from mr_core.reprogrammed import Trainable
from mr_core.trainers.trainer import LabelledInputs

CALIBRATION_BINS = 15


@torch.no_grad()
def backbone_outputs(
    model: Trainable, data: LabelledInputs, device: torch.device, *, observer: Observer
) -> Float[Tensor, "n d"]:
    """What the label mapping reads, of all images, on the CPU; the observer may cancel between passes."""
    parts = []
    for chunk in chunks(len(data), model.batch_limit):
        parts.append(model.backbone_outputs(data.batch(chunk, device)).cpu())
        observer.beat()
    return torch.cat(parts)


@torch.no_grad()
def predict_logits(
    model: Trainable, data: LabelledInputs, device: torch.device, *, observer: Observer
) -> Float[Tensor, "n c"]:
    """Target logits of all images, on the CPU; the observer may cancel between passes."""
    parts = []
    for chunk in chunks(len(data), model.batch_limit):
        parts.append(model(data.batch(chunk, device)).cpu())
        observer.beat()
    return torch.cat(parts)


def chunks(n: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover `range(n)`."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def evaluate(logits: Float[Tensor, "n c"], labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, balanced accuracy (mean recall over the classes present), loss, calibration, per class, confusion.

    `confusion[t][p]` counts samples of class t predicted as p. `expected_calibration_error` is that of Guo et al.,
    2017 (arXiv:1706.04599, eq. 3) with 15 equal bins. A recall or precision without samples is null.
    """
    targets = torch.from_numpy(labels)
    probabilities = logits.double().softmax(1)
    confidences, predictions = probabilities.max(1)
    n_classes = len(classes)
    confusion = torch.bincount(targets * n_classes + predictions, minlength=n_classes**2).view(n_classes, n_classes)
    correct, of_class, as_class = confusion.diag(), confusion.sum(1), confusion.sum(0)
    recalls = [_ratio(correct[i], of_class[i]) for i in range(n_classes)]
    present = [recall for recall in recalls if recall is not None]
    return {
        "n": len(labels),
        "accuracy": int(correct.sum()) / len(labels),
        "balanced_accuracy": sum(present) / len(present),
        "loss": float(functional.cross_entropy(logits.double(), targets)),
        "expected_calibration_error": calibration_error(confidences, predictions == targets),
        "per_class": [
            {"class": name, "n": int(of_class[i]), "recall": recalls[i], "precision": _ratio(correct[i], as_class[i])}
            for i, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }


def calibration_error(confidences: Float[Tensor, " n"], correct: Tensor) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by their samples; in [0, 1]."""
    bins = (confidences * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, confidences.double() - correct.double())
    return float(gaps.abs().sum() / len(confidences))


def _ratio(part: Tensor, whole: Tensor) -> float | None:
    return int(part) / int(whole) if whole else None
