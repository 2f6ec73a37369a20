"""Settles what an input transform leaves open (`image_size: "auto"`), by validation before any training."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mr_core.backbones.backbone import Backbone
from mr_core.datasets.splits import stratified_sample
from mr_core.errors import SpecError
from mr_core.evaluation import backbone_outputs
from mr_core.input_transforms.base import InputTransformSpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.preparation import ImageSource
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.probe import fit_probe
from mr_core.reprogrammed import ReprogrammedModel

SAMPLES = 512  # of each side: enough to tell scales apart, a few seconds of passes


@dataclass(frozen=True)
class Scale:
    """One size that was tried, in pixels, and its accuracy on validation images."""

    image_size: int
    validation_accuracy: float


def settle_image_size(
    transform: InputTransformSpec,
    mapping: LabelMappingSpec,
    context: JobContext,
    backbone: Backbone,
    *,
    train: NDArray[np.int64],
    validation: NDArray[np.int64] | None,
) -> tuple[InputTransformSpec, list[Scale] | None]:
    """The transform to use, and what its choices reached; the transform as it is and None where nothing is open.

    Every choice is tried untrained: its mapping fitted on up to 512 of the training images, or a linear probe where
    the mapping has weights, and judged on up to 512 of the validation images (positions in the train split). The
    larger image on a tie. SpecError without validation images.
    """
    choices = transform.choices(backbone.canvas_size)
    if len(choices) == 1:
        return choices[0], None
    if validation is None or not len(validation):
        raise SpecError(
            "image_size 'auto' is chosen on validation images, and there are none: set evaluation.validation_fraction "
            "above 0, or a size",
            param="input_transform.image_size",
        )
    labels = context.dataset.labels("train")
    sides = [part[stratified_sample(labels[part], min(SAMPLES, len(part)), seed=0)] for part in (train, validation)]
    tried: list[tuple[Scale, InputTransformSpec]] = []
    for choice in choices:
        accuracy = _untrained_accuracy(choice, mapping, context, backbone, *sides)
        tried.append((Scale(choice.size_on(backbone.canvas_size), accuracy), choice))
    best = max(tried, key=lambda pair: (pair[0].validation_accuracy, pair[0].image_size))
    context.observer.message(
        f"image_size {best[0].image_size} of {', '.join(str(scale.image_size) for scale, _ in tried)}: "
        f"{best[0].validation_accuracy:.1%} of the validation images without training"
    )
    return best[1], [scale for scale, _ in tried]


def _untrained_accuracy(
    transform: InputTransformSpec,
    mapping: LabelMappingSpec,
    context: JobContext,
    backbone: Backbone,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
) -> float:
    classes, source = context.dataset.classes, ImageSource(context, backbone)
    model = ReprogrammedModel(transform.build(backbone.preprocessing), backbone, mapping.build(backbone, classes)).to(
        context.device
    )
    parts = [source.read(model.input_transform, "train", indices) for indices in (train, validation)]
    fitted, judged = (backbone_outputs(model, part, context.device, observer=context.observer) for part in parts)
    labels = torch.from_numpy(parts[0].labels)
    if any(True for _ in model.label_mapping.parameters()):
        probe = fit_probe((fitted.numpy(), parts[0].labels), n_classes=len(classes), beat=context.observer.beat)
        logits = probe.logits(judged)
    else:
        model.label_mapping.fit(fitted, labels)
        with torch.no_grad():
            logits = model.label_mapping.cpu()(judged)
    return float((logits.argmax(1).numpy() == parts[1].labels).mean())
