"""The run of a diagnosis: embed a subsample, take its kernel, read spectrum, prediction and verdict off it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mr_core.adapter import load_adapter
from mr_core.baselines import frozen_outputs
from mr_core.datasets.splits import stratified_sample, stratified_split
from mr_core.errors import DatasetError, KernelError, SpecError
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.cheap_scores import cheap_scores
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.baselines import cheap_baselines, initial_logits_without, untrained_accuracy
from mr_core.jobs.diagnose.spec import DiagnoseSpec
from mr_core.jobs.diagnose.verdict import judge
from mr_core.jobs.outcome import JobOutcome, SpectrumContent
from mr_core.jobs.preparation import ImageSource, ready_backbone
from mr_core.jobs.scale import settle_image_size
from mr_core.jobs.stopwatch import Stopwatch
from mr_core.ntk.empirical import require_kernel_memory, tangent_kernel
from mr_core.ntk.memory import MEMORY_CAP_BYTES
from mr_core.ntk.prediction import accuracy_interval, held_out_logits, stratified_folds, training_curve
from mr_core.ntk.spectrum import eigendecomposition, spectrum
from mr_core.plots import diagnose_artifacts
from mr_core.provenance import provenance
from mr_core.reprogrammed import ReprogrammedModel
from mr_core.trainers.trainer import LabelledImages

N_FOLDS = 5


def diagnose(spec: DiagnoseSpec, context: JobContext) -> JobOutcome:
    """How well the backbone would serve the task, from its tangent kernel on `spec.samples` training images.

    The kernel is that of the model as it stands before training (after it, with `spec.adapter`); a mapping that is
    counted is fitted on the subsample first. The predicted accuracy is that of the linearised model on held-out
    parts of the subsample, hence of a training set a little smaller than it: `mr_core.ntk.prediction` says what
    that leaves out.

    Raises SpecError (fewer samples than classes, nothing to train, an adapter of other classes), KernelError (over
    the memory cap, not finite), DatasetError, BackboneError and AdapterError.
    """
    watch, observer, classes = Stopwatch(context.observer), context.observer, context.dataset.classes
    chosen = _chosen(spec, context)

    watch.begin("embedding")
    model = _model(spec, context, chosen)
    _require_memory(spec, model, n_samples=len(chosen), n_classes=len(classes))
    source = ImageSource(context, model.backbone)
    sample = source.read(model.input_transform, "train", chosen)
    duplicate_of = _name_duplicates(sample, chosen, context)
    alone = IdentitySpec().build(model.backbone.preprocessing)
    plain = frozen_outputs(
        model.backbone,
        alone,
        {"train": source.read(alone, "train", chosen)},
        model.backbone.available_outputs,
        device=context.device,
        observer=observer,
    ).outputs["train"]
    through = frozen_outputs(
        model.backbone,
        model.input_transform,
        {"train": sample},
        model.backbone.available_outputs,
        device=context.device,
        observer=observer,
    ).outputs["train"]
    outputs = through[model.label_mapping.reads].to(context.device)
    labels = torch.from_numpy(sample.labels)
    refits = spec.adapter is None and model.label_mapping.refit != "never"
    if refits:
        model.label_mapping.fit(outputs, labels)

    watch.begin("diagnosing")
    kernel = tangent_kernel(
        model,
        sample.batch(slice(None), context.device),
        parameters=model.adapter_parameters(),
        kind=spec.kernel,
        on_progress=lambda done, total: observer.progress(done, total, unit="image"),
    )
    total = kernel.total()
    observer.beat()
    eigen = eigendecomposition(total, kind=spec.kernel)
    observer.beat()
    targets = functional.one_hot(labels, len(classes)).to(torch.float64)
    read = spectrum(kernel, total, eigen, targets)
    folds = stratified_folds(sample.labels, duplicate_of, n_folds=N_FOLDS, seed=spec.seed)
    initial_logits = initial_logits_without(model.label_mapping, outputs, labels, refits=refits)
    held_out = held_out_logits(eigen, targets, folds, initial_logits, beat=observer.beat)
    n_right = int((held_out.logits.argmax(1) == labels).sum())
    predicted: dict[str, Any] = {
        "accuracy": n_right / len(labels),
        "accuracy_interval": list(accuracy_interval(n_right, len(labels))),
        "training_curve": training_curve(eigen, initial_logits(torch.tensor([], dtype=torch.int64)), targets),
    }
    baselines = cheap_baselines(
        plain, labels, folds, None if spec.adapter else model.label_mapping, backbone=model.backbone, classes=classes
    )
    prompt = kernel.groups.get("input_transform")
    verdict = judge(
        read.summary,
        predicted,
        baselines,
        is_trained=spec.adapter is not None,
        is_approximate=spec.kernel != "full" and prompt is not None and prompt.trace > 0,
    )
    result = {
        "spectrum": dict(read.summary),
        "predicted": predicted,
        "verdict": verdict,
        "baselines": baselines,
        "scores": {
            "untrained_accuracy": None
            if spec.adapter
            else untrained_accuracy(model.label_mapping, through, labels, folds, n_classes=len(classes)),
            **cheap_scores(through, labels),
        },
        "image_size": model.input_transform.image_size,
        "timing": {"seconds": watch.total(), "phases": watch.phases()},
    }
    groups = {name: {"trace": part.trace} for name, part in kernel.groups.items()}
    content = SpectrumContent(
        eigenvalues=read.eigenvalues,
        label_energy=read.label_energy,
        summary={**read.summary, "groups": groups, "ridge": held_out.ridge},
    )
    artifacts = diagnose_artifacts(
        result=result,
        spectrum=content,
        classes=classes,
        spec=spec.model_dump(mode="json"),
        provenance=provenance(dataset_sha256=context.dataset.sha256),
    )
    return JobOutcome(result=result, spectrum=content, artifacts=artifacts)


def _chosen(spec: DiagnoseSpec, context: JobContext) -> NDArray[np.int64]:
    labels = context.dataset.labels("train")
    n_classes = len(np.unique(labels))
    if n_classes < 2:
        raise DatasetError(f"{n_classes} class has training images: a diagnosis needs two", param="dataset")
    if spec.samples < n_classes:
        raise SpecError(
            f"{spec.samples} samples cannot cover {n_classes} classes: at least one image of each is needed, "
            f"{5 * n_classes} are better",
            param="samples",
        )
    return stratified_sample(labels, spec.samples, spec.seed)


def _model(spec: DiagnoseSpec, context: JobContext, chosen: NDArray[np.int64]) -> ReprogrammedModel:
    """The untrained model of the spec, or that of its adapter, on the job's device."""
    classes = context.dataset.classes
    if spec.adapter is None:
        backbone = ready_backbone(context, spec.backbone, spec.input_transform)
        kept, held_out = stratified_split(context.dataset.labels("train")[chosen], 1 / N_FOLDS, spec.seed)
        transform, _ = settle_image_size(
            spec.input_transform,
            spec.label_mapping,
            context,
            backbone,
            train=chosen[kept],
            validation=chosen[held_out],
        )
        mapping = spec.label_mapping.build(backbone, classes)
        model = ReprogrammedModel(transform.build(backbone.preprocessing), backbone, mapping)
    else:
        if context.adapter is None:
            raise SpecError(f"the job was not given the files of {spec.adapter}", param="adapter")
        classifier = load_adapter(context.adapter, context.load_backbone(spec.backbone))
        if classifier.classes != classes:
            raise SpecError(
                f"the adapter {spec.adapter} knows {len(classifier.classes)} classes ({_listed(classifier.classes)}), "
                f"the dataset has {len(classes)} ({_listed(classes)})",
                param="adapter",
            )
        model = classifier.model
    if not model.adapter_parameters():
        raise SpecError(
            "there is nothing to train, so there is no tangent kernel: neither the input transform nor the label "
            "mapping has parameters",
            param="input_transform.kind",
        )
    return model.to(context.device)


def _require_memory(spec: DiagnoseSpec, model: ReprogrammedModel, *, n_samples: int, n_classes: int) -> None:
    """Refuse an oversized kernel before anything is computed; a linear head alone stays small."""
    if any(True for _ in model.input_transform.parameters()) and bool(model.label_mapping.matrix().any()):
        try:
            require_kernel_memory(spec.kernel, n_samples=n_samples, n_outputs=n_classes, memory_cap=MEMORY_CAP_BYTES)
        except KernelError as error:
            raise KernelError(f"{n_samples} samples x {n_classes} classes: {error.detail}", param="kernel") from error


def _name_duplicates(sample: LabelledImages, chosen: NDArray[np.int64], context: JobContext) -> NDArray[np.int64]:
    """The first sample with the same pixels, for each; those that repeat another are told to the observer."""
    first_seen: dict[bytes, int] = {}
    duplicate_of = np.array([first_seen.setdefault(image.tobytes(), i) for i, image in enumerate(sample.images)])
    repeats = np.flatnonzero(duplicate_of != np.arange(len(chosen)))
    if repeats.size:
        names = context.dataset.names("train")
        pairs = [f"{names[chosen[i]]} = {names[chosen[duplicate_of[i]]]}" for i in repeats[:5]]
        more = f" and {repeats.size - 5} more" if repeats.size > 5 else ""
        context.observer.message(
            f"{repeats.size} of the {len(chosen)} samples repeat another's pixels, which makes the kernel singular: "
            f"{', '.join(pairs)}{more}",
            level="warning",
        )
    return duplicate_of


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
