import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from mr_core.errors import ScoreError
from mr_core.scores.sliced_wasserstein import sliced_wasserstein


def logits(n, z, seed):
    return np.random.default_rng(seed).normal(size=(n, z)) * (1 + np.arange(z))


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 30), (17, 40), (1, 9)])
def test_is_the_mean_of_the_exact_distances_of_its_projections(n, m):
    source, target = logits(n, 6, 0), logits(m, 6, 1) + 1
    drawn = np.random.Generator(np.random.PCG64(5)).standard_normal((100, 6))
    directions = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    expected = np.mean([wasserstein_distance(source @ line, target @ line) for line in directions])
    assert sliced_wasserstein(source, target, n_projections=100, seed=5) == pytest.approx(expected)


def test_in_one_dimension_is_the_distance_itself():
    source, target = logits(11, 1, 0), logits(7, 1, 1)
    expected = wasserstein_distance(source[:, 0], target[:, 0])
    assert sliced_wasserstein(source, target, n_projections=3) == pytest.approx(expected)


def test_of_a_shift_is_below_its_length_by_the_mean_cosine():
    """W1 of a shift v is |v|; a random unit direction sees `E|cos| |v|`, 4 / (3 pi) of it in four dimensions."""
    source = logits(20, 4, 0)
    found = sliced_wasserstein(source, source + np.array([3.0, 0.0, 4.0, 0.0]), n_projections=20_000)
    assert found == pytest.approx(5 * 4 / (3 * np.pi), rel=0.01)
    assert found < 5


def test_is_symmetric_and_zero_of_a_sample_told_twice():
    source, target = logits(12, 5, 0), logits(9, 5, 1)
    assert sliced_wasserstein(source, target) == pytest.approx(sliced_wasserstein(target, source))
    assert sliced_wasserstein(source, np.vstack([source, source])) == pytest.approx(0, abs=1e-12)


def test_the_seed_draws_the_directions():
    source, target = logits(12, 5, 0), logits(9, 5, 1)
    assert sliced_wasserstein(source, target, seed=1) == sliced_wasserstein(source, target, seed=1)
    assert sliced_wasserstein(source, target, seed=1) != sliced_wasserstein(source, target, seed=2)


def test_refuses_logits_of_other_classes_and_no_projections():
    with pytest.raises(ScoreError, match="of 5 and of 6 source classes"):
        sliced_wasserstein(logits(9, 5, 0), logits(9, 6, 0))
    with pytest.raises(ScoreError, match="n_projections is 0"):
        sliced_wasserstein(logits(9, 5, 0), logits(9, 5, 1), n_projections=0)
