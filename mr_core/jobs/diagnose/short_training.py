"""A short training on halves of the sample: how far the adapter comes where it does not stay linear."""

from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mr_core.datasets.splits import stratified_sample
from mr_core.errors import TrainingDiverged
from mr_core.evaluation import predict_logits
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.spec import SHORT_TRAINING_SAMPLES, DiagnoseSpec, short_trainer
from mr_core.jobs.diagnose.subject import Subject
from mr_core.ntk.prediction import stratified_folds
from mr_core.observer import Beating
from mr_core.reprogrammed import FeatureHead, ReprogrammedModel, Trainable
from mr_core.trainers.trainer import LabelledFeatures, LabelledImages, LabelledInputs, TrainingRun

N_HALVES: Final = 2


def short_training_accuracy(
    spec: DiagnoseSpec,
    subject: Subject,
    outputs: Float[Tensor, "n d"],
    duplicate_of: NDArray[np.int64],
    context: JobContext,
) -> float | None:
    """Accuracy on each half of at most 200 samples, of an adapter trained for 70 steps on the other half.

    The linearised model cannot say what a prompt reaches that changes the features it reads; these steps of the
    default trainer can, for some 2,000 images of training. `outputs` is what the mapping reads of all samples in the
    untrained transform. None where the descent diverges.
    """
    n_samples = min(max(SHORT_TRAINING_SAMPLES, len(context.dataset.classes)), len(subject.chosen))
    used = stratified_sample(subject.sample.labels, n_samples, spec.seed)
    labels = subject.sample.labels[used]
    halves = stratified_folds(labels, duplicate_of[used], n_folds=N_HALVES, seed=spec.seed)
    if len(halves) < N_HALVES:
        return None
    n_right = 0
    for half in halves:
        judged = half.numpy()
        trained = np.setdiff1d(np.arange(len(used)), judged)
        model = _untrained(spec, subject, context)
        parts = [_part(model, subject, outputs, used[places]) for places in (trained, judged)]
        run = TrainingRun(
            train=parts[0], validation=None, observer=Beating(context.observer), device=context.device, seed=spec.seed
        )
        try:
            short_trainer(len(trained)).build().train(model, run)
        except TrainingDiverged:
            return None
        logits = predict_logits(model, parts[1], context.device, observer=run.observer)
        n_right += int((logits.argmax(1).cpu() == torch.from_numpy(parts[1].labels)).sum())
    return n_right / len(used)


def _untrained(spec: DiagnoseSpec, subject: Subject, context: JobContext) -> Trainable:
    backbone = subject.model.backbone
    transform = subject.input_transform.build(backbone.preprocessing)
    mapping = spec.label_mapping.build(backbone, context.dataset.classes)
    model = ReprogrammedModel(transform, backbone, mapping).to(context.device)
    return model if any(True for _ in transform.parameters()) else FeatureHead(model)


def _part(
    model: Trainable, subject: Subject, outputs: Float[Tensor, "n d"], samples: NDArray[np.int64]
) -> LabelledInputs:
    labels = subject.sample.labels[samples]
    if isinstance(model, FeatureHead):
        return LabelledFeatures(features=outputs[torch.from_numpy(samples)], labels=labels)
    return LabelledImages(images=subject.sample.images[samples], labels=labels)
