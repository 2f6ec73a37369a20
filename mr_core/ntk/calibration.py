"""From what a diagnosis measures to the accuracy that training will reach: fitted on adapters that were trained."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import expit, logit

COEFFICIENTS = Path(__file__).with_name("calibration.json")
FEATURES = (
    "linearised",
    "short_training",
    "untrained",
    "linear_probe",
)  # each a share of right answers, on held-out samples
COVERAGE = 0.9
RIDGE = 0.3  # of the squared coefficients, each feature having unit spread
_TRIALS = 200  # samples behind each share: none counts as surer than this allows


@dataclass(frozen=True)
class Measured:
    """One combination, diagnosed and then trained.

    `shares` are the features by name; `reached` is the test accuracy after training. `group` is the dataset:
    what was fitted on a group is never judged on it.
    """

    group: str
    shares: Mapping[str, float]
    n_classes: int
    reached: float


@dataclass(frozen=True)
class Calibration:
    """A linear model of log odds, with the spread of its errors on datasets that it had not seen.

    Both sides are log odds above chance, `logit(share) - logit(1 / C)`, so tasks of any number of classes compare.
    """

    version: str
    intercept: float
    weights: Mapping[str, float]
    half_width: float  # of the 90 % interval, in log odds
    n_rows: int
    n_groups: int

    def accuracy(self, shares: Mapping[str, float], *, n_classes: int) -> tuple[float, tuple[float, float]]:
        """The predicted accuracy and its 90 % interval, for the features by name."""
        centre = self.intercept + sum(
            weight * above_chance(shares[name], n_classes) for name, weight in self.weights.items()
        )
        low, high = (share_of(centre + side * self.half_width, n_classes) for side in (-1, 1))
        return share_of(centre, n_classes), (low, high)

    def draws(self, accuracy: float, n: int, *, generator: np.random.Generator) -> Float[np.ndarray, " n"]:
        """What training may reach where that is predicted: n draws in (0, 1), normal in log odds.

        The interval's half width is the normal distribution's 95 % quantile.
        """
        deviation = self.half_width / NormalDist().inv_cdf(0.5 + COVERAGE / 2)
        return np.asarray(expit(_log_odds(accuracy) + deviation * generator.standard_normal(n)))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        return cls(**json.loads(text))


@cache
def in_force() -> Calibration | None:
    """The coefficients that `python -m benchmarks.prediction --calibrate VERSION` has left; None before that."""
    return Calibration.from_json(COEFFICIENTS.read_text()) if COEFFICIENTS.exists() else None


def fit(rows: Sequence[Measured], *, version: str, features: Sequence[str] = FEATURES) -> Calibration:
    """Ridge regression of log odds; its interval is the conformal one over groups left out.

    Each group is predicted by a fit on the others; `half_width` is the 90 % quantile of those errors (Vovk et al.,
    2005: coverage holds where a new dataset is drawn as these were). ValueError for fewer than three groups.
    """
    intercept, weights = _solve(rows, features)
    errors = np.abs([guess - above_chance(row.reached, row.n_classes) for row, guess in left_out(rows, features)])
    rank = min(1.0, np.ceil((len(errors) + 1) * COVERAGE) / len(errors))
    return Calibration(
        version=version,
        intercept=intercept,
        weights=dict(zip(features, weights.tolist(), strict=True)),
        half_width=float(np.quantile(errors, rank, method="higher")),
        n_rows=len(rows),
        n_groups=len({row.group for row in rows}),
    )


def left_out(rows: Sequence[Measured], features: Sequence[str] = FEATURES) -> list[tuple[Measured, float]]:
    """Every row with the log odds above chance that a fit on the other groups gives it."""
    groups = list(dict.fromkeys(row.group for row in rows))
    if len(groups) < 3:
        raise ValueError(f"{len(groups)} groups: leaving one out needs at least three")
    guesses = []
    for group in groups:
        intercept, weights = _solve([row for row in rows if row.group != group], features)
        inside = [row for row in rows if row.group == group]
        guesses += [(row, intercept + float(_inputs([row], features)[0] @ weights)) for row in inside]
    return guesses


def above_chance(share: float, n_classes: int) -> float:
    """`logit(share) - logit(1 / C)`, the share kept half a sample away from 0 and 1."""
    return _log_odds(share) + float(np.log(n_classes - 1))


def share_of(log_odds: float, n_classes: int) -> float:
    """The inverse of `above_chance`, in [0, 1]."""
    kept = expit(log_odds - np.log(n_classes - 1))
    return float(np.clip((kept * (_TRIALS + 1) - 0.5) / _TRIALS, 0, 1))


def _log_odds(share: float) -> float:
    return float(logit((share * _TRIALS + 0.5) / (_TRIALS + 1)))


def _solve(rows: Sequence[Measured], features: Sequence[str]) -> tuple[float, NDArray[np.float64]]:
    inputs = _inputs(rows, features)
    targets = np.array([above_chance(row.reached, row.n_classes) for row in rows])
    centre, mean = inputs.mean(0), targets.mean()
    spread = np.maximum(inputs.std(0), 1e-12)
    scaled = (inputs - centre) / spread
    weights = np.linalg.solve(scaled.T @ scaled + RIDGE * np.eye(len(features)), scaled.T @ (targets - mean)) / spread
    return float(mean - centre @ weights), weights


def _inputs(rows: Sequence[Measured], features: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[above_chance(row.shares[name], row.n_classes) for name in features] for row in rows])
