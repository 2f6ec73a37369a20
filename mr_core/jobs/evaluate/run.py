"""The run of an evaluation: the adapter's predictions on a split, and what they are worth."""

from typing import Any

import numpy as np

from mr_core.adapter import load_adapter
from mr_core.adapter_file import read_adapter, read_config
from mr_core.errors import DatasetError, SpecError
from mr_core.evaluation import evaluate, predict_logits
from mr_core.jobs.context import JobContext
from mr_core.jobs.evaluate.spec import EvaluateSpec
from mr_core.jobs.outcome import JobOutcome
from mr_core.jobs.preparation import ImageSource
from mr_core.jobs.remote_account import open_account
from mr_core.jobs.remote_rules import require
from mr_core.jobs.stopwatch import Stopwatch
from mr_core.plots import evaluate_artifacts
from mr_core.predictions import predictions_file
from mr_core.trainers.trainer import LabelledImages


def run_evaluation(spec: EvaluateSpec, context: JobContext) -> JobOutcome:
    """Predict every image of the split once and compare with its class, by name.

    The dataset may lack some of the adapter's classes; SpecError where it has others. DatasetError where the split
    is empty; AdapterError and BackboneError as `load_adapter` raises them.
    """
    watch, observer, dataset = Stopwatch(context.observer), context.observer, context.dataset
    if context.adapter is None:
        raise SpecError(f"the job was not given the files of {spec.adapter}", param="adapter")
    if not dataset.n(spec.split):
        raise DatasetError(f"the dataset has no {spec.split} images", param="split")

    watch.begin("embedding")
    config = read_config(read_adapter(context.adapter))
    described = config["backbone"]
    # A random backbone is drawn again from the adapter's own seed; the job has another.
    is_random = described.get("random_seed") is not None
    classifier = load_adapter(context.adapter, None if is_random else context.load_backbone(str(described["id"])))
    unknown = [name for name in dataset.classes if name not in classifier.classes]
    if unknown:
        raise SpecError(
            f"the adapter {spec.adapter} does not know the classes {', '.join(unknown[:5])} of the dataset; it knows "
            f"{len(classifier.classes)}: {', '.join(classifier.classes[:5])}...",
            param="adapter",
        )
    model = classifier.model.to(context.device)
    account = open_account(spec, context, model.backbone)
    if account.oracle is not None:
        cost = account.oracle.cost(dataset.n(spec.split))
        require(account.oracle.limit, cost, what=f"the {spec.split} images")
    model.backbone.chunk_size = max(1, model.backbone.chunk_size // context.batch_divisor)
    images = ImageSource(context, model.backbone).read(model.input_transform, spec.split)
    place = np.array([classifier.classes.index(name) for name in dataset.classes])
    judged = LabelledImages(images=images.images, labels=place[images.labels])

    watch.begin("evaluating")
    logits = predict_logits(model, judged, context.device, observer=observer)
    metrics: dict[str, Any] = {"validation": None, "test": None, "train": None}
    metrics[spec.split] = evaluate(logits, judged.labels, classifier.classes)
    trained_on = config.get("provenance", {}).get("dataset_sha256")
    result = {
        "metrics": metrics,
        "seen_in_training": spec.split == "train" and trained_on == dataset.sha256,
        **account.statement(),
        "timing": {"seconds": watch.total(), "phases": watch.phases()},
    }
    confusion = np.asarray(metrics[spec.split]["confusion"], dtype=np.int64)
    predictions = predictions_file(logits, judged.labels, images=dataset.names(spec.split), classes=classifier.classes)
    pictures = evaluate_artifacts(classes=classifier.classes, confusion=confusion)
    return JobOutcome(result=result, artifacts=[*pictures, predictions])
