"""A small real dataset that a dependency ships: scikit-learn's handwritten digits, as an archive to upload."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say: the same bytes each time


def write_digits(path: Path, *, per_class: int | None = None) -> Path:
    """A zip of `train/<digit>/` and `test/<digit>/`, 80 to 20, stratified, seed 0; `per_class` cuts each digit."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    indices = np.arange(len(digits.target))
    if per_class is not None:
        indices = np.sort(np.concatenate([np.flatnonzero(digits.target == digit)[:per_class] for digit in range(10)]))
    train, test = train_test_split(indices, test_size=0.2, random_state=0, stratify=digits.target[indices])
    with zipfile.ZipFile(path, "w") as archive:
        for split, members in (("train", np.sort(train)), ("test", np.sort(test))):
            for index in members:
                name = f"{split}/{digits.target[index]}/{index:04}.png"
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), _png(digits.images[index]))
    return path


def _png(image: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> bytes:
    """Eight by eight values from 0 to 16, as grey levels."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8)).save(buffer, format="png")
    return buffer.getvalue()
