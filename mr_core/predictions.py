"""What was predicted for each image, as a file to compare models by."""

import csv
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mr_core.jobs.outcome import Artifact

COLUMNS = ("image", "label", "predicted", "probability")


def predictions_file(
    logits: Float[Tensor, "n c"], labels: NDArray[np.int64], *, images: Sequence[str], classes: Sequence[str]
) -> Artifact:
    """`predictions.csv`: a row an image, with its class, the predicted class and that one's probability."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    probabilities, predicted = logits.double().softmax(1).max(1)
    for image, label, guess, probability in zip(
        images, labels.tolist(), predicted.tolist(), probabilities.tolist(), strict=True
    ):
        writer.writerow((image, classes[label], classes[guess], f"{probability:.6f}"))
    return Artifact("predictions.csv", "text/csv", text.getvalue().encode())
