"""The accuracy and the training curve that a diagnosis predicts from its kernel, or from that of fewer samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mr_core.datasets.splits import stratified_sample
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.baselines import initial_logits_without
from mr_core.jobs.diagnose.spec import DiagnoseSpec
from mr_core.jobs.diagnose.subject import N_FOLDS, Subject
from mr_core.ntk import calibration
from mr_core.ntk.empirical import tangent_kernel
from mr_core.ntk.linear_regime import first_steps, linear_regime
from mr_core.ntk.prediction import (
    accuracy_interval,
    held_out_logits,
    stratified_folds,
    training_curve,
    training_targets,
)
from mr_core.ntk.spectrum import Eigen, eigendecomposition

ROWS_OF_FEWER: Final = 3000
"""Of the kernel that a prediction is taken from where that of all samples is too large to be formed."""
LEAST_OF_A_CLASS: Final = 2


@dataclass(frozen=True)
class Prediction:
    """What was predicted, as the result tells it, and the ridge that cross-validation chose."""

    figures: dict[str, Any]
    ridge: float | None


def predict(
    spec: DiagnoseSpec,
    subject: Subject,
    eigen: Eigen | None,
    outputs: Float[Tensor, "n d"],
    duplicate_of: NDArray[np.int64],
    context: JobContext,
) -> Prediction:
    """The prediction of the samples whose kernel's eigenpairs these are.

    Without them that of fewer samples, stratified, whose kernel has at most 3,000 rows and is taken here; nothing where
    they would be fewer than two of a class. `outputs` is what the mapping reads, of all samples.
    """
    used, n_classes = np.arange(len(subject.chosen)), len(context.dataset.classes)
    if eigen is None:
        if ROWS_OF_FEWER // n_classes < LEAST_OF_A_CLASS * n_classes:
            empty: dict[str, Any] = {
                "accuracy": None,
                "accuracy_interval": None,
                "training_curve": [],
                "n_samples": 0,
                "linear_regime": [],
                "first_steps": [],
            }
            return Prediction(empty, ridge=None)
        used = stratified_sample(subject.sample.labels, ROWS_OF_FEWER // n_classes, spec.seed)
        eigen = _eigen_of(used, subject, context)
    labels = subject.labels[used]
    targets = functional.one_hot(labels, n_classes).to(torch.float64)
    folds = stratified_folds(labels.numpy(), duplicate_of[used], n_folds=N_FOLDS, seed=spec.seed)
    initial_logits = initial_logits_without(subject.model.label_mapping, outputs[used], labels, refits=subject.refits)
    held_out = held_out_logits(eigen, targets, folds, initial_logits, beat=context.observer.beat)
    n_right = int((held_out.logits.argmax(1) == labels).sum())
    figures = {
        "accuracy": n_right / len(labels),
        "accuracy_interval": list(accuracy_interval(n_right, len(labels))),
        "training_curve": training_curve(eigen, initial_logits(torch.tensor([], dtype=torch.int64)), targets),
        "n_samples": len(labels),
        "linear_regime": [],
        "first_steps": [],
    }
    if spec.kernel == "full":
        logits = initial_logits(torch.tensor([], dtype=torch.int64))
        measured = (subject.model, subject.images(used), training_targets(logits, targets), eigen)
        settings: dict[str, Any] = {
            "parameters": subject.model.adapter_parameters(),
            "batch_size": subject.model.batch_limit,
            "beat": context.observer.beat,
        }
        figures |= {
            "linear_regime": linear_regime(*measured, **settings),
            "first_steps": first_steps(*measured, **settings),
        }
    return Prediction(figures, ridge=held_out.ridge)


def calibrated(figures: Mapping[str, Any], shares: Mapping[str, float | None], *, n_classes: int) -> dict[str, Any]:
    """The figures with `accuracy` and `accuracy_interval` corrected by adapters that were trained.

    `shares` are the calibration's features beside `linearised`, by name. `linearised_accuracy` is what the kernel alone
    says, `calibration` the version of the coefficients; that is None, and nothing is corrected, without coefficients or
    where one of the shares is not known.
    """
    told = {**figures, "linearised_accuracy": figures["accuracy"], "calibration": None}
    coefficients = calibration.in_force()
    known = {name: share for name, share in shares.items() if share is not None}
    if figures["accuracy"] is not None:
        known["linearised"] = figures["accuracy"]
    if coefficients is None or not coefficients.weights.keys() <= known.keys():
        return told
    accuracy, interval = coefficients.accuracy(known, n_classes=n_classes)
    return {**told, "accuracy": accuracy, "accuracy_interval": list(interval), "calibration": coefficients.version}


def _eigen_of(used: NDArray[np.int64], subject: Subject, context: JobContext) -> Eigen:
    kernel = tangent_kernel(
        subject.model,
        subject.images(used),
        parameters=subject.model.adapter_parameters(),
        on_progress=lambda done, total: context.observer.progress(done, total, unit="image"),
    )
    total = kernel.total()
    context.observer.beat()
    return eigendecomposition(total)
