"""Outputs of the frozen backbone for the images alone: computed once for a dataset, then shared by jobs."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

import mr_core
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import Output
from mr_core.backbones.remote.source import oracle_of
from mr_core.baselines import FrozenOutputs, Part, frozen_outputs
from mr_core.datasets.pack import Split
from mr_core.features import feature_key
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.places import Places
from mr_core.jobs.preparation import ImageSource


def outputs_of_parts(places: Places, context: JobContext, backbone: Backbone) -> FrozenOutputs:
    """What the frozen backbone gives for the images alone, by part: all that the baselines read.

    Each split is embedded whole, so that jobs which divide it otherwise find it too. Memory: all outputs of the
    dataset in float32, some 10 kB an image.
    """
    whole = {split: _outputs_of_split(split, context, backbone) for split in {split for split, _ in places.values()}}
    outputs: dict[Part, Mapping[Output, Tensor]] = {}
    labels = {}
    for part, (split, indices) in places.items():
        chosen = slice(None) if indices is None else indices
        outputs[part] = {name: values[chosen] for name, values in whole[split].items()}
        labels[part] = context.dataset.labels(split)[chosen]
    return FrozenOutputs(outputs=outputs, labels=labels)


def kept_outputs(split: Split, context: JobContext, backbone: Backbone) -> Mapping[Output, Tensor] | None:
    """What an earlier job has left of a split's outputs."""
    key, names = _key(split, context, backbone), backbone.available_outputs
    kept = context.features.load(key) if key is not None else None
    if kept is None or set(kept) != set(names) or any(len(kept[n]) != context.dataset.n(split) for n in names):
        return None
    return {name: torch.from_numpy(np.array(kept[name])) for name in names}


def _outputs_of_split(split: Split, context: JobContext, backbone: Backbone) -> Mapping[Output, Tensor]:
    kept = kept_outputs(split, context, backbone)
    if kept is not None:
        context.observer.message(f"the {split} images were embedded by an earlier job")
        return kept
    key, names = _key(split, context, backbone), backbone.available_outputs
    alone = IdentitySpec().build(backbone.preprocessing)
    images = ImageSource(context, backbone).read(alone, split)
    computed = frozen_outputs(
        backbone, alone, {"train": images}, names, device=context.device, observer=context.observer
    ).outputs["train"]
    if key is not None:
        context.features.save(key, {name: values.numpy() for name, values in computed.items()})
    return computed


def _key(split: Split, context: JobContext, backbone: Backbone) -> str | None:
    """None for a random backbone with BatchNorm, whose statistics are the job's own, and after a lack of memory.

    What a remote one answers does not depend on this machine.
    """
    is_remote = oracle_of(backbone) is not None
    if backbone.calibrated_statistics or (context.batch_divisor > 1 and not is_remote):
        return None
    return feature_key(
        dataset_sha256=context.dataset.sha256,
        split=split,
        backbone_sha256=backbone.state_sha256,
        preprocessing=backbone.preprocessing,
        environment={}
        if is_remote
        else {
            "version": mr_core.__version__,
            "torch": torch.__version__,
            "device": context.device.type,
            "threads": torch.get_num_threads(),
            "pass": backbone.chunk_size,
        },
    )
