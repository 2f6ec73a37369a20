"""The linear probe: logistic regression on frozen features. A baseline, and where a linear mapping may start."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mr_core.threads import threads_for

GRID = (0.001, 0.01, 0.1, 1.0, 10.0)  # sklearn's C, on standardised features
DEFAULT_C = 0.1

Labelled = tuple[Float[NDArray[np.floating], "n d"], NDArray[np.int64]]


@dataclass(frozen=True)
class Probe:
    """`features @ weight.T + bias`, in float64; rows of classes without training samples are as unlikely as can be."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]

    def logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Scores of the target classes."""
        return features.double() @ self.weight.T + self.bias


def fit_probe(
    train: Labelled,
    *,
    n_classes: int,
    validation: Labelled | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Probe:
    """Multinomial logistic regression with an L2 penalty whose strength validation chooses (0.1 without any).

    Features are standardised for the fit and the scaling is folded into the weights. The best of the grid is taken
    as it is after 200 steps of L-BFGS; on a tie the stronger penalty. `beat` is called after each fit.
    """
    features, labels = np.asarray(train[0], dtype=np.float64), train[1]
    mean, std = features.mean(0), features.std(0) + 1e-8
    standardised = (features - mean) / std
    judged = None if validation is None else (np.asarray(validation[0], dtype=np.float64) - mean) / std
    best: tuple[float, LogisticRegression] | None = None
    with threads_for(features.size * n_classes), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for c in GRID if validation is not None else (DEFAULT_C,):
            probe = LogisticRegression(C=c, max_iter=200).fit(standardised, labels)
            beat()
            score = float(probe.score(judged, validation[1])) if validation is not None else 0.0
            if best is None or score > best[0]:
                best = (score, probe)
    assert best is not None
    return _folded(best[1], mean, std, n_classes)


def _folded(probe: LogisticRegression, mean: NDArray[np.float64], std: NDArray[np.float64], n_classes: int) -> Probe:
    rows, offsets = np.asarray(probe.coef_) / std, np.asarray(probe.intercept_)
    if len(probe.classes_) == 2:  # sklearn gives the log odds of the second class alone
        rows, offsets = np.concatenate([-rows / 2, rows / 2]), np.concatenate([-offsets / 2, offsets / 2])
    offsets = offsets - rows @ mean
    weight = np.zeros((n_classes, rows.shape[1]))
    bias = np.full(n_classes, offsets.min() - 10.0)
    weight[probe.classes_], bias[probe.classes_] = rows, offsets
    return Probe(weight=torch.from_numpy(weight), bias=torch.from_numpy(bias))
