"""The frozen feature map of every image, computed once and kept on disk: memory does not grow with the dataset."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

import mr_core
from mr_core.backbones.backbone import Backbone
from mr_core.backbones.builtin.feature_map_source import FeatureMapSource
from mr_core.backbones.weights import state_sha256
from mr_core.datasets.pack import Split
from mr_core.errors import SpecError
from mr_core.evaluation import chunks
from mr_core.features import feature_key
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.preparation import ImageSource
from mr_core.trainers.trainer import LabelledInputs

MOST_BYTES = 16 * 2**30  # of one split, on disk
SHARED_BYTES = 256 * 2**20  # a smaller set is kept for other jobs; that takes it into memory

Maps = NDArray[np.float32]


@dataclass(frozen=True)
class LabelledMaps(LabelledInputs):
    """Those maps of a split that are at `places`, for a network on them."""

    maps: Maps
    places: NDArray[np.int64]
    labels: NDArray[np.int64]

    def batch(self, indices: NDArray[np.int64] | slice, device: torch.device) -> Float[Tensor, "n c h w"]:
        """Those maps; only they are read from disk."""
        return torch.from_numpy(np.array(self.maps[self.places[indices]])).to(device)


def maps_of_split(split: Split, context: JobContext, backbone: Backbone) -> Maps:
    """The map of each image of the split `(n, c, h, w)`, of a backbone that is a `FeatureMapSource`."""
    source = backbone.source
    assert isinstance(source, FeatureMapSource)
    shape = (context.dataset.n(split), *source.network.shape)
    n_bytes = 4 * int(np.prod(shape))
    if n_bytes > MOST_BYTES:
        raise SpecError(
            f"the feature maps of {shape[0]} images take {n_bytes} bytes on disk, expected at most {MOST_BYTES}: "
            "fewer images, or a backbone with a smaller map",
            param="backbone",
        )
    key = None if context.batch_divisor > 1 or n_bytes > SHARED_BYTES else _key(split, context, backbone)
    kept = context.features.load(key) if key is not None else None
    if kept is not None and set(kept) == {"map"} and kept["map"].shape == shape:
        context.observer.message(f"the maps of the {split} images were computed by an earlier job")
        return kept["map"]
    maps = _computed(split, context, backbone, shape)
    if key is not None:
        context.features.save(key, {"map": np.asarray(maps)})
    return maps


def pooled(maps: Maps, *, rows: int = 256) -> Tensor:
    """The mean of each map over its places, `(n, c)`."""
    return torch.cat([torch.from_numpy(np.array(maps[part])).mean((2, 3)) for part in chunks(len(maps), rows)])


@torch.no_grad()
def _computed(split: Split, context: JobContext, backbone: Backbone, shape: tuple[int, ...]) -> Maps:
    source = backbone.source
    assert isinstance(source, FeatureMapSource)
    images = ImageSource(context, backbone).read(IdentitySpec().build(backbone.preprocessing), split)
    maps = np.lib.format.open_memmap(context.scratch / f"maps-{split}.npy", mode="w+", dtype=np.float32, shape=shape)
    for chunk in chunks(len(images), max(1, backbone.chunk_size // context.batch_divisor)):
        canvases = (images.batch(chunk, context.device) - backbone.mean) / backbone.std
        maps[chunk] = source.base(canvases).cpu().numpy()
        context.observer.progress(chunk.stop, len(images), unit="image")
    maps.flush()
    return maps


def _key(split: Split, context: JobContext, backbone: Backbone) -> str:
    source = backbone.source
    assert isinstance(source, FeatureMapSource)
    environment: Mapping[str, object] = {
        "output": "map",
        "version": mr_core.__version__,
        "torch": torch.__version__,
        "device": context.device.type,
        "threads": torch.get_num_threads(),
        "pass": backbone.chunk_size,
    }
    return feature_key(
        dataset_sha256=context.dataset.sha256,
        split=split,
        backbone_sha256=state_sha256(source.base),
        preprocessing=backbone.preprocessing,
        environment=environment,
    )
