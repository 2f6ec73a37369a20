"""Archives of scikit-learn's handwritten digits."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits


def write_digits(path: Path, digits: Sequence[int], *, n_train: int, n_test: int) -> Path:
    """`train/<digit>/` and `test/<digit>/` with so many images of each."""
    source = load_digits()
    with zipfile.ZipFile(path, "w") as target:
        for digit in digits:
            values = source.images[source.target == digit]
            for i in range(n_train + n_test):
                split = "train" if i < n_train else "test"
                with target.open(f"{split}/{digit}/{i}.png", "w") as file:
                    Image.fromarray((values[i] * 255 / 16).astype("uint8")).save(file, "PNG")
    return path
