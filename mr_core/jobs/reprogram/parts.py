"""The parts of a dataset that a training uses."""

import numpy as np
from numpy.typing import NDArray

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import Output
from mr_core.baselines import FrozenOutputs, Part
from mr_core.input_transforms.module import InputTransform
from mr_core.jobs.context import JobContext
from mr_core.jobs.places import Places, divided
from mr_core.jobs.preparation import ImageSource
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.jobs.trial.spec import TrialSpec
from mr_core.trainers.trainer import LabelledFeatures, LabelledInputs

Training = ReprogramSpec | TrialSpec


def places_of(spec: Training, context: JobContext) -> Places:
    """Which images of which split each part holds; parts without images are left out."""
    return divided(context.dataset, validation_fraction=spec.evaluation.validation_fraction, seed=spec.seed)


def training_positions(places: Places, context: JobContext) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Positions of the training and of the validation images in the train split; None where there are none."""
    kept = places["train"][1]
    if kept is None:
        kept = np.arange(context.dataset.n("train"))
    return kept, places["validation"][1] if "validation" in places else None


def feature_parts(frozen: FrozenOutputs, reads: Output) -> dict[Part, LabelledInputs]:
    """The parts as the outputs that a label mapping reads, for a model without anything to train before them."""
    return {
        part: LabelledFeatures(features=outputs[reads], labels=frozen.labels[part])
        for part, outputs in frozen.outputs.items()
    }


def read_parts(
    places: Places, context: JobContext, backbone: Backbone, transform: InputTransform
) -> dict[Part, LabelledInputs]:
    """The images of each part at the size the transform takes."""
    source = ImageSource(context, backbone)
    return {part: source.read(transform, split, indices) for part, (split, indices) in places.items()}
