"""The run of a diagnosis: embed a subsample, take its kernel, read spectrum, prediction and verdict off it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.cheap_scores import cheap_scores
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.baselines import cheap_baselines, untrained_accuracy
from mr_core.jobs.diagnose.embedding import Embedding, keep_embedding, load_embedding
from mr_core.jobs.diagnose.kernels import plan_kernel, read_kernel, require_kernel_fits
from mr_core.jobs.diagnose.prediction import calibrated, predict
from mr_core.jobs.diagnose.short_training import short_training_accuracy
from mr_core.jobs.diagnose.spec import DiagnoseSpec
from mr_core.jobs.diagnose.subject import N_FOLDS, Subject, load_subject, outputs_through
from mr_core.jobs.diagnose.verdict import judge
from mr_core.jobs.outcome import JobOutcome, SpectrumContent
from mr_core.jobs.preparation import ImageSource
from mr_core.jobs.stopwatch import Stopwatch
from mr_core.ntk.memory import MEMORY_CAP_BYTES
from mr_core.ntk.prediction import stratified_folds
from mr_core.plots import diagnose_artifacts
from mr_core.provenance import provenance


def diagnose(spec: DiagnoseSpec, context: JobContext) -> JobOutcome:
    """How well the backbone would serve the task, from its tangent kernel on `spec.samples` training images.

    The kernel is that of the model as it stands before training (after it, with `spec.adapter`); a mapping that is
    counted is fitted on the subsample first. The linearised accuracy is that of kernel regression on held-out parts of
    the subsample, hence of a training set a little smaller than it (`mr_core.ntk.prediction` says what that leaves
    out); the predicted one corrects it by what adapters reached that were trained (`mr_core.ntk.calibration`).

    Raises SpecError (fewer samples than classes, nothing to train, an adapter of other classes), KernelError (over
    the memory cap, not finite), DatasetError, BackboneError and AdapterError.
    """
    watch, observer, classes = Stopwatch(context.observer), context.observer, context.dataset.classes

    watch.begin("embedding")
    kept = load_embedding(observer)
    subject = load_subject(spec, context, settled=None if kept is None else kept.input_transform)
    model, sample, labels = subject.model, subject.sample, subject.labels
    require_kernel_fits(spec, subject, n_classes=len(classes), memory_cap=MEMORY_CAP_BYTES)
    duplicate_of = _name_duplicates(subject, context, is_told=kept is not None)
    embedding = kept or _embedding(subject, context)
    plain, through = embedding.plain, embedding.through
    outputs = through[model.label_mapping.reads].to(context.device)
    subject.fit_mapping(outputs)
    plan = plan_kernel(spec, subject, memory_cap=MEMORY_CAP_BYTES)
    if plan.stretches and kept is None:
        keep_embedding(observer, embedding)

    watch.begin("diagnosing")
    targets = functional.one_hot(labels, len(classes)).to(torch.float64)
    with subject.naming_samples(context):
        reading = read_kernel(spec, subject, plan, context, targets=targets, memory_cap=MEMORY_CAP_BYTES)
    read = reading.spectrum
    summary = {**read.summary, "precision": spec.precision}
    prediction = predict(spec, subject, reading.eigen, outputs, duplicate_of, context)
    folds = stratified_folds(sample.labels, duplicate_of, n_folds=N_FOLDS, seed=spec.seed)
    baselines = cheap_baselines(
        plain, labels, folds, None if spec.adapter else model.label_mapping, backbone=model.backbone, classes=classes
    )
    is_approximate = spec.kernel != "full" and reading.traces.get("input_transform", 0) > 0
    untrained = short_training = None
    if spec.adapter is None:
        untrained = untrained_accuracy(model.label_mapping, through, labels, folds, n_classes=len(classes))
        if spec.short_training and not is_approximate:
            short_training = short_training_accuracy(spec, subject, outputs, duplicate_of, context)
    shares = {
        "untrained": None if is_approximate else untrained,
        "short_training": short_training,
        "linear_probe": baselines["linear_probe"],
    }
    predicted = {
        **calibrated(prediction.figures, shares, n_classes=len(classes)),
        "short_training_accuracy": short_training,
    }
    verdict = judge(
        summary,
        predicted,
        baselines,
        is_trained=spec.adapter is not None,
        is_approximate=is_approximate,
    )
    result = {
        "spectrum": summary,
        "predicted": predicted,
        "verdict": verdict,
        "baselines": baselines,
        "scores": {
            "untrained_accuracy": untrained,
            **cheap_scores(through, labels),
        },
        "image_size": model.input_transform.image_size,
        "timing": {"seconds": watch.total(), "phases": watch.phases()},
    }
    groups = {name: {"trace": trace} for name, trace in reading.traces.items()}
    content = SpectrumContent(
        eigenvalues=read.eigenvalues,
        label_energy=read.label_energy,
        summary={**summary, "groups": groups, "ridge": prediction.ridge},
    )
    artifacts = diagnose_artifacts(
        result=result,
        spectrum=content,
        classes=classes,
        spec=spec.model_dump(mode="json"),
        provenance=provenance(dataset_sha256=context.dataset.sha256),
    )
    return JobOutcome(result=result, spectrum=content, artifacts=artifacts)


def _embedding(subject: Subject, context: JobContext) -> Embedding:
    alone = IdentitySpec().build(subject.model.backbone.preprocessing)
    images = ImageSource(context, subject.model.backbone).read(alone, "train", subject.chosen)
    return Embedding(
        input_transform=subject.input_transform,
        plain=outputs_through(subject.model, alone, images, context),
        through=outputs_through(subject.model, subject.model.input_transform, subject.sample, context),
    )


def _name_duplicates(subject: Subject, context: JobContext, *, is_told: bool) -> NDArray[np.int64]:
    """The first sample with the same pixels, for each; those that repeat another are told to the observer, once."""
    first_seen: dict[bytes, int] = {}
    images = subject.sample.images
    duplicate_of = np.array([first_seen.setdefault(image.tobytes(), i) for i, image in enumerate(images)])
    repeats = np.flatnonzero(duplicate_of != np.arange(len(images)))
    if repeats.size and not is_told:
        names = subject.names(context)
        pairs = [f"{names[i]} = {names[duplicate_of[i]]}" for i in repeats[:5]]
        more = f" and {repeats.size - 5} more" if repeats.size > 5 else ""
        context.observer.message(
            f"{repeats.size} of the {len(images)} samples repeat another's pixels, which makes the kernel singular: "
            f"{', '.join(pairs)}{more}",
            level="warning",
        )
    return duplicate_of
