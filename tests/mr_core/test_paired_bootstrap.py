"""The paired bootstrap against closed forms and scipy's."""

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from mr_core.paired_bootstrap import paired_bootstrap


def test_methods_that_agree_everywhere_do_not_differ():
    hits = np.array([1.0, 0, 1, 1, 0])
    found = paired_bootstrap(hits, hits, seed=0)
    assert (found.difference, found.interval, found.probability_better) == (0.0, (0.0, 0.0), 0.5)
    assert (found.beyond_noise, found.n) == (False, 5)


def test_interval_is_that_of_scipy():
    generator = np.random.default_rng(3)
    first = generator.random(300) < 0.8
    second = np.where(generator.random(300) < 0.3, generator.random(300) < 0.5, first)
    found = paired_bootstrap(first.astype(float), second.astype(float), seed=1)
    other = bootstrap(
        (first.astype(float), second.astype(float)),
        lambda a, b: a.mean() - b.mean(),
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert found.interval == pytest.approx((other.low, other.high), abs=0.008)


def test_of_many_images_it_is_the_normal_distribution():
    """Of n images 6 % are right by the first alone and 4 % by the second alone: variance 0.1 - 0.02^2 of each."""
    n = 20_000
    difference = np.repeat([1.0, -1.0, 0.0], [n * 6 // 100, n * 4 // 100, n * 90 // 100])
    found = paired_bootstrap(np.maximum(difference, 0), np.maximum(-difference, 0), seed=0)
    deviation = np.sqrt((0.1 - 0.02**2) / n)
    reach = norm.ppf(0.975) * deviation
    assert found.interval == pytest.approx((0.02 - reach, 0.02 + reach), abs=2e-4)
    assert found.beyond_noise
    assert found.probability_better == 1


def test_is_antisymmetric_in_what_it_finds():
    generator = np.random.default_rng(5)
    first, second = (generator.integers(0, 4, 60) / 3 for _ in range(2))
    ahead, behind = paired_bootstrap(first, second, seed=0), paired_bootstrap(second, first, seed=0)
    assert ahead.difference == pytest.approx(-behind.difference)
    assert ahead.probability_better == pytest.approx(1 - behind.probability_better, abs=0.01)


def test_discordant_answers_that_balance_are_noise():
    difference = np.repeat([1.0, -1.0, 0.0], [5, 4, 91])
    found = paired_bootstrap(np.maximum(difference, 0), np.maximum(-difference, 0), seed=0)
    assert not found.beyond_noise
    assert 0.5 < found.probability_better < 0.75
