"""Whether one method is better than another beyond what the choice of images explains."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

DRAWS = 20_000
LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """The first method's accuracy less the second's, on the same images.

    `interval` holds 95 % of the resampled differences; `probability_better` is the share of them above 0, those of
    exactly 0 counted by half. `beyond_noise`: the interval does not hold 0.
    """

    difference: float
    interval: tuple[float, float]
    probability_better: float
    beyond_noise: bool
    n: int


def paired_bootstrap(
    first: Float[NDArray[np.floating], " n"], second: Float[NDArray[np.floating], " n"], *, seed: int
) -> Comparison:
    """Compare two methods by how often each was right on image i: 0 or 1, or a mean over seeds.

    The percentile bootstrap of the mean difference (Efron and Tibshirani, 1993, chapter 13), images resampled and the
    two methods' answers to one image kept together: what both find hard cancels. How far trainings from other seeds lie
    apart is not in it. Resamples are drawn as counts of each different value, which is the same distribution and takes
    a handful of numbers a draw instead of n.
    """
    values, counts = np.unique(np.asarray(first, np.float64) - np.asarray(second, np.float64), return_counts=True)
    n = int(counts.sum())
    means = np.random.default_rng(seed).multinomial(n, counts / n, size=DRAWS) @ values / n
    low, high = (float(bound) for bound in np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Comparison(
        difference=float(values @ counts) / n,
        interval=(low, high),
        probability_better=float((means > 0).mean() + (means == 0).mean() / 2),
        beyond_noise=low > 0 or high < 0,
        n=n,
    )
