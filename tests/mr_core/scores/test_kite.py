import numpy as np
import pytest

from mr_core.errors import ScoreError
from mr_core.scores.kite import kite

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])


def features(seed, d=5):
    return np.random.default_rng(seed).normal(size=(len(LABELS), d))


def cka(left, right):
    n = len(left)
    centring = np.eye(n) - np.ones((n, n)) / n

    def hsic(a, b):
        return np.trace(a @ centring @ b @ centring)

    return hsic(left, right) / np.sqrt(hsic(left, left) * hsic(right, right))


def test_is_the_ratio_of_two_alignments():
    learned, random = features(0), features(1, d=3)
    one_hot = np.eye(3)[LABELS]
    expected = cka(learned @ learned.T, one_hot @ one_hot.T) / cka(learned @ learned.T, random @ random.T)
    assert kite(learned, LABELS, random) == pytest.approx(expected)


def test_random_features_of_its_own_leave_the_alignment_with_the_labels():
    learned = features(0)
    one_hot = np.eye(3)[LABELS]
    assert kite(learned, LABELS, learned) == pytest.approx(cka(learned @ learned.T, one_hot @ one_hot.T))


def test_does_not_depend_on_scale_offset_or_rotation():
    learned, random = features(0), features(1)
    rotation = np.linalg.qr(features(2)[:5])[0]
    assert kite(1e60 * (learned @ rotation), LABELS, 7 - random) == pytest.approx(kite(learned, LABELS, random))


@pytest.mark.parametrize("constant", [0.0, 0.1])
def test_refuses_features_that_do_not_vary(constant):
    flat = np.full((len(LABELS), 4), constant)
    for learned, random in [(flat, features(0)), (features(0), flat)]:
        with pytest.raises(ScoreError, match="features that vary"):
            kite(learned, LABELS, random)


def test_refuses_features_of_other_samples():
    with pytest.raises(ScoreError, match="random_features of 7 samples; the 8"):
        kite(features(0), LABELS, features(1)[:-1])
