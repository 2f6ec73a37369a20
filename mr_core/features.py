"""Where the outputs of frozen backbones are kept between jobs. Torch-free."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mr_core.backbones.description import Preprocessing


class FeatureCache:
    """Keeps nothing: every job computes its own. A service gives one that remembers."""

    def load(self, key: str) -> Mapping[str, NDArray[np.float32]] | None:
        """The arrays kept under the key, or None."""
        return None

    def save(self, key: str, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep the arrays; may decide not to. Equal keys mean equal arrays."""


def feature_key(
    *,
    dataset_sha256: str,
    split: str,
    backbone_sha256: str,
    preprocessing: Preprocessing,
    environment: Mapping[str, Any],
) -> str:
    """Names the outputs of all images of a split: data, weights, preprocessing, and what rounding depends on.

    With the threads and the device in `environment`, a job finds the bytes that it would have computed itself.
    """
    fields = {
        "dataset": dataset_sha256,
        "split": split,
        "backbone": backbone_sha256,
        "preprocessing": preprocessing.model_dump(mode="json"),
        "environment": dict(environment),
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
