"""What a source network trains on, and what its linear probe reads."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.builtin.feature_map_source import FeatureMapSource
from mr_core.baselines import FrozenOutputs, Part
from mr_core.datasets.pack import Split
from mr_core.datasets.splits import stratified_sample
from mr_core.evaluation import chunks
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.places import Places
from mr_core.jobs.preparation import ImageSource
from mr_core.jobs.train_source.augmentation import AugmentedImages
from mr_core.jobs.train_source.maps import LabelledMaps, maps_of_split, pooled
from mr_core.trainers.trainer import LabelledImages, LabelledInputs

PROBED_IMAGES = 5000  # of the training part, stratified: the probe's matrices are in float64
PROBED_SIDE = 32  # larger images are averaged down to it


@dataclass(frozen=True)
class SourceData:
    """Inputs by part, the training images augmented where that was asked for; and what the probe reads."""

    parts: dict[Part, LabelledInputs]
    plain: FrozenOutputs


def read_pixels(places: Places, context: JobContext, backbone: Backbone, *, augment: bool) -> SourceData:
    """Images at the size of the canvas; the probe reads their pixels."""
    source, alone = ImageSource(context, backbone), IdentitySpec().build(backbone.preprocessing)
    images = {part: source.read(alone, split, indices) for part, (split, indices) in places.items()}
    plain = {}
    for part, data in images.items():
        chosen = _probed(part, data.labels)
        plain[part] = (_pixels(data, chosen), data.labels[chosen])
    parts: dict[Part, LabelledInputs] = dict(images)
    if augment:
        parts["train"] = AugmentedImages(images["train"])
    return SourceData(parts, _frozen(plain))


def read_maps(places: Places, context: JobContext, backbone: Backbone) -> SourceData:
    """Feature maps, computed once; the probe reads their means."""
    assert isinstance(backbone.source, FeatureMapSource)
    splits: set[Split] = {split for split, _ in places.values()}
    maps = {split: maps_of_split(split, context, backbone) for split in sorted(splits)}
    means = {split: pooled(values) for split, values in maps.items()}
    parts: dict[Part, LabelledInputs] = {}
    plain = {}
    for part, (split, indices) in places.items():
        positions = np.arange(len(maps[split])) if indices is None else indices
        labels = context.dataset.labels(split)[positions]
        parts[part] = LabelledMaps(maps=maps[split], places=positions, labels=labels)
        chosen = _probed(part, labels)
        plain[part] = (means[split][positions[chosen]], labels[chosen])
    return SourceData(parts, _frozen(plain))


def _frozen(plain: dict[Part, tuple[Tensor, NDArray[np.int64]]]) -> FrozenOutputs:
    return FrozenOutputs(
        outputs={part: {"embedding": features} for part, (features, _) in plain.items()},
        labels={part: labels for part, (_, labels) in plain.items()},
    )


def _probed(part: Part, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    if part == "train" and len(labels) > PROBED_IMAGES:
        return stratified_sample(labels, PROBED_IMAGES, seed=0)
    return np.arange(len(labels))


def _pixels(images: LabelledImages, chosen: NDArray[np.int64]) -> Tensor:
    side = min(PROBED_SIDE, images.images.shape[-1])
    cpu = torch.device("cpu")
    rows = [
        functional.adaptive_avg_pool2d(images.batch(chosen[part], cpu), side).flatten(1)
        for part in chunks(len(chosen), 256)
    ]
    return torch.cat(rows)
