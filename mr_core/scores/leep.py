"""LEEP: how well labels can be predicted from a source model's probabilities."""

import numpy as np

from mr_core.errors import ScoreError
from mr_core.scores.arrays import Array, Matrix, as_labels, as_numbers, as_probabilities, class_indices, one_hot


def leep(source_probabilities: Array, labels: Array) -> float:
    """Log expected empirical prediction: at most 0, higher is better (Nguyen et al., 2020, arXiv:2002.12462).

    `mean_i log sum_z P(y_i | z) Q_iz`, with `P(y, z) = (1/n) sum_{i: y_i = y} Q_iz` and `P(y | z)` that over its sum
    over y. `source_probabilities` Q is (n, z), rows summing to 1, and `labels` (n,). A source class to which no
    sample gives mass adds nothing, where the published code divides 0 by 0. As z grows beyond n it rises towards 0 for
    any labels: compare sources of about as many classes. ScoreError for input that is not so, OneClass for one class.
    """
    probabilities = as_probabilities(source_probabilities)
    indices = class_indices(as_labels(labels, len(probabilities)))
    joint = one_hot(indices).T @ probabilities / len(probabilities)
    marginal = joint.sum(0)
    conditional = joint / np.where(marginal > 0, marginal, 1.0)
    return float(np.log((probabilities * conditional[indices]).sum(1)).mean())


def softmax(logits: Array, *, temperature: float = 1.0) -> Matrix:
    """`(n, z)` source probabilities from logits divided by the temperature, in float64; rows sum to 1.

    CLIP's logits, 100 times a cosine, give nearly one-hot rows at temperature 1: LEEP then sees little but the argmax,
    so the temperature is a choice to keep with the score. ScoreError where it is not above 0.
    """
    if not temperature > 0:
        raise ScoreError(f"the temperature is {temperature}; more than 0 was expected")
    numbers = as_numbers(logits, "source_logits", axes=("samples", "source classes"))
    exponentials = np.exp((numbers - numbers.max(1, keepdims=True)) / temperature)
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True), dtype=np.float64)
