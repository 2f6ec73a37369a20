"""Where the images of each part of a job lie in the dataset."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mr_core.baselines import Part
from mr_core.datasets.dataset import ImageDataset
from mr_core.datasets.pack import Split
from mr_core.datasets.splits import stratified_split

Places = Mapping[Part, tuple[Split, NDArray[np.int64] | None]]  # of each part: its split, and which of it (None: all)


def divided(dataset: ImageDataset, *, validation_fraction: float, seed: int) -> Places:
    """Training and validation images, of the train split, and the test split; parts without images are left out."""
    places: dict[Part, tuple[Split, NDArray[np.int64] | None]] = {"train": ("train", None)}
    if validation_fraction > 0:
        kept, held_out = stratified_split(dataset.labels("train"), validation_fraction, seed)
        places = {"train": ("train", kept), "validation": ("train", held_out)}
    if dataset.n("test"):
        places["test"] = ("test", None)
    return places
