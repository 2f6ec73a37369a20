"""The parts of a dataset that a training uses, as images and as what the frozen backbone makes of them."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mr_core import baselines
from mr_core.backbones.backbone import Backbone
from mr_core.baselines import FrozenOutputs, Part
from mr_core.datasets.pack import Split
from mr_core.datasets.splits import stratified_split
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.input_transforms.module import InputTransform
from mr_core.jobs.context import JobContext
from mr_core.jobs.preparation import ImageSource
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.trainers.trainer import LabelledImages

Places = Mapping[Part, tuple[Split, NDArray[np.int64] | None]]  # of each part: its split, and which of it (None: all)


def places_of(spec: ReprogramSpec, context: JobContext) -> Places:
    """Which images of which split each part holds; parts without images are left out."""
    labels = context.dataset.labels("train")
    fraction = spec.evaluation.validation_fraction
    places: dict[Part, tuple[Split, NDArray[np.int64] | None]] = {"train": ("train", None)}
    if fraction > 0:
        kept, held_out = stratified_split(labels, fraction, spec.seed)
        places = {"train": ("train", kept), "validation": ("train", held_out)}
    if context.dataset.n("test"):
        places["test"] = ("test", None)
    return places


def training_positions(places: Places, context: JobContext) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Positions of the training and of the validation images in the train split; None where there are none."""
    kept = places["train"][1]
    if kept is None:
        kept = np.arange(context.dataset.n("train"))
    return kept, places["validation"][1] if "validation" in places else None


def read_parts(
    places: Places, context: JobContext, backbone: Backbone, transform: InputTransform
) -> dict[Part, LabelledImages]:
    """The images of each part at the size the transform takes."""
    source = ImageSource(context, backbone)
    return {part: source.read(transform, split, indices) for part, (split, indices) in places.items()}


def frozen_outputs(places: Places, context: JobContext, backbone: Backbone) -> FrozenOutputs:
    """What the frozen backbone gives for the images alone: all that the baselines read."""
    alone = IdentitySpec().build(backbone.preprocessing)
    return baselines.frozen_outputs(
        backbone,
        alone,
        read_parts(places, context, backbone, alone),
        backbone.available_outputs,
        device=context.device,
        observer=context.observer,
    )
