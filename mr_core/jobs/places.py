"""Where the images of each part of a job lie in the dataset."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mr_core.baselines import Part
from mr_core.datasets.pack import Split

Places = Mapping[Part, tuple[Split, NDArray[np.int64] | None]]  # of each part: its split, and which of it (None: all)
