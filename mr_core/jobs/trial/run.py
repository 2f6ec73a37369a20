"""The run of a trial: the training of a reprogramming, judged on validation images alone."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mr_core.baselines import brief_metrics
from mr_core.errors import SpecError
from mr_core.evaluation import predict_logits
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.features import outputs_of_parts
from mr_core.jobs.outcome import JobOutcome
from mr_core.jobs.places import Places
from mr_core.jobs.preparation import ready_backbone
from mr_core.jobs.reprogram.parts import feature_parts, places_of, read_parts, training_positions
from mr_core.jobs.reprogram.training import best_of, train_repeats
from mr_core.jobs.scale import settle_image_size
from mr_core.jobs.stopwatch import Stopwatch
from mr_core.jobs.trial.spec import TrialSpec


def trial(spec: TrialSpec, context: JobContext) -> JobOutcome:
    """Train, and tell accuracy and loss of the kept adapter, which itself is not kept, and which images it got right.

    Selection goes by the same validation images, so the accuracy is optimistic by as much as epochs and seeds were
    chosen on them. Raises SpecError where there are none, and what a reprogramming raises.
    """
    watch = Stopwatch(context.observer)
    watch.begin("embedding")
    places: Places = {part: place for part, place in places_of(spec, context).items() if part != "test"}
    train, validation = training_positions(places, context)
    if validation is None or not len(validation):
        raise SpecError(
            f"a trial is judged on validation images, and {len(train)} training images leave none at a validation "
            f"fraction of {spec.evaluation.validation_fraction}",
            param="evaluation.validation_fraction",
        )
    backbone = ready_backbone(context, spec.backbone, spec.input_transform)
    settled, _ = settle_image_size(
        spec.input_transform, spec.label_mapping, context, backbone, train=train, validation=validation
    )
    spec = spec.model_copy(update={"input_transform": settled})
    if isinstance(settled, IdentitySpec):
        parts = feature_parts(outputs_of_parts(places, context, backbone), spec.label_mapping.reads)
    else:
        parts = read_parts(places, context, backbone, settled.build(backbone.preprocessing))

    watch.begin("training")
    trained = train_repeats(spec, context, backbone, parts)
    chosen = best_of(trained)

    watch.begin("evaluating")
    judged = parts["validation"]
    by_seed = []
    for one in trained:
        logits = predict_logits(one.trainable, judged, context.device, observer=context.observer)
        answers = {**brief_metrics(logits, judged.labels), "n": len(judged), "hits": hits(logits, judged.labels)}
        by_seed.append({"seed": one.seed, **answers})
    answers_of_chosen = by_seed[trained.index(chosen)]
    history = chosen.history
    return JobOutcome(
        result={
            "validation": {name: value for name, value in answers_of_chosen.items() if name != "seed"},
            "training": {"epochs": len(history.rows), "kept_epoch": history.kept_epoch},
            "seeds": by_seed if len(by_seed) > 1 else None,
            "image_size": chosen.model.input_transform.image_size,
            "timing": {"seconds": watch.total(), "phases": watch.phases()},
        }
    )


def hits(logits: Tensor, labels: NDArray[np.int64]) -> str:
    """Which images are answered right: a bit each, the first the highest of the first byte, as hexadecimal digits."""
    return np.packbits(logits.argmax(1).numpy() == labels).tobytes().hex()


def hits_of(digits: str, n: int) -> NDArray[np.float64]:
    """The same as numbers 0 and 1, of n images."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8), count=n).astype(np.float64)
