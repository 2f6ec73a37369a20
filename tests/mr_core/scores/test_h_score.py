import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from mr_core.scores.h_score import h_score


def problem(n, d, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    features = generator.normal(size=(n, d)) @ generator.normal(size=(d, d)) + 5
    features[:, 0] += 2 * labels
    return features, labels


def class_means(features, labels):
    return np.array([features[labels == label].mean(0) for label in labels])


def test_is_the_trace_of_the_formula():
    features, labels = problem(50, 6)
    spread = class_means(features, labels)
    expected = np.trace(np.linalg.inv(np.cov(features.T)) @ np.cov(spread.T))
    assert h_score(features, labels) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(50, 6), (20, 20), (20, 45)])
def test_shrunk_is_the_trace_of_its_formula(shape):
    features, labels = problem(*shape)
    n, d = shape
    centred = features - features.mean(0)
    covariance = sum(np.outer(row, row) for row in centred) / n
    mean = np.trace(covariance) / d
    distance = np.sum((covariance - mean * np.eye(d)) ** 2)
    noise = sum(np.sum((np.outer(row, row) - covariance) ** 2) for row in centred) / n**2
    shrinkage = min(noise, distance) / distance
    assert 0 < shrinkage < 1
    shrunk = (1 - shrinkage) * covariance + shrinkage * mean * np.eye(d)
    spread = np.cov(class_means(features, labels).T)
    expected = np.trace(np.linalg.inv(shrunk) @ ((1 - shrinkage) * spread))
    assert h_score(features, labels, covariance="shrunk") == pytest.approx(expected)


def test_shrinks_as_sklearn_does():
    features, labels = problem(20, 45)
    covariance, shrinkage = ledoit_wolf(features)
    spread = np.cov(class_means(features, labels).T)
    expected = np.trace(np.linalg.solve(covariance, (1 - shrinkage) * spread))
    assert h_score(features, labels) == pytest.approx(expected)


def test_auto_shrinks_where_the_sample_covariance_is_singular():
    for n, d in [(30, 29), (30, 30), (30, 31)]:
        features, labels = problem(n, d)
        chosen = h_score(features, labels, covariance="sample" if n > d else "shrunk")
        assert h_score(features, labels) == chosen


def test_sample_covariance_says_nothing_of_wide_features():
    features, labels = problem(20, 45)
    shuffled = np.random.default_rng(1).permutation(labels)
    assert h_score(features, labels, covariance="sample") == pytest.approx(2)
    assert h_score(features, shuffled, covariance="sample") == pytest.approx(2)
    assert h_score(features, labels) > h_score(features, shuffled)


def test_does_not_depend_on_scale_or_offset_nor_the_sample_form_on_the_basis():
    features, labels = problem(50, 6)
    basis = np.random.default_rng(2).normal(size=(6, 6))
    assert h_score(features @ basis - 3, labels) == pytest.approx(h_score(features, labels))
    for scale in (1e-60, 1e60):
        found = h_score(scale * features, labels, covariance="shrunk")
        assert found == pytest.approx(h_score(features, labels, covariance="shrunk"))


def test_a_dimension_told_twice_counts_once():
    features, labels = problem(50, 6)
    assert h_score(np.hstack([features, features[:, :2]]), labels) == pytest.approx(h_score(features, labels))


@pytest.mark.parametrize("covariance", ["sample", "shrunk"])
def test_equal_features_score_zero(covariance):
    assert h_score(np.full((9, 3), 0.1), np.arange(9) % 2, covariance=covariance) == 0
