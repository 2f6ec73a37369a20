import math

import numpy as np
import pytest

from mr_core.errors import ScoreError
from mr_core.scores.kernel_ridge import (
    gcv_error,
    kare,
    kernel_regression_accuracy,
    leave_one_out_error,
    mean_eigenvalue,
)

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
N, CLASSES = len(LABELS), 3
ONE_HOT = np.eye(CLASSES)[LABELS]


def kernel(m, seed=0):
    rows = np.random.default_rng(seed).normal(size=(m, m + 3))
    return rows @ rows.T


def columns(m):
    return ONE_HOT if m == N else ONE_HOT.reshape(-1, 1)


@pytest.mark.parametrize("m", [N, N * CLASSES])
@pytest.mark.parametrize("ridge", [0.0, 0.3, 50.0])
def test_leave_one_out_really_leaves_one_out(m, ridge):
    matrix, per_sample = kernel(m), m // N
    errors = []
    for sample in range(N):
        out = np.arange(sample * per_sample, (sample + 1) * per_sample)
        keep = np.setdiff1d(np.arange(m), out)
        inner = matrix[np.ix_(keep, keep)] + ridge * np.eye(len(keep))
        predicted = matrix[np.ix_(out, keep)] @ np.linalg.solve(inner, columns(m)[keep])
        errors.append(np.sum((columns(m)[out] - predicted) ** 2))
    assert leave_one_out_error(matrix, LABELS, ridge) == pytest.approx(np.mean(errors))


@pytest.mark.parametrize("m", [N, N * CLASSES])
def test_gcv_equals_explicit_inverses(m):
    matrix, ridge = kernel(m), 0.7
    inverse = np.linalg.inv(matrix + ridge * np.eye(m))
    total = 0.0
    for row in inverse @ columns(m):
        for entry in row:
            total += entry**2
    assert gcv_error(matrix, LABELS, ridge) == pytest.approx(total / N / (np.trace(inverse) / m) ** 2)


@pytest.mark.parametrize("m", [N, N * CLASSES])
def test_kare_equals_explicit_inverses(m):
    matrix, ridge = kernel(m), 0.2
    inverse = np.linalg.inv(matrix / m + ridge * np.eye(m))
    numerator = sum(y @ inverse @ inverse @ y for y in columns(m).T) / m
    assert kare(matrix, LABELS, ridge) == pytest.approx(numerator / (np.trace(inverse) / m) ** 2)


@pytest.mark.parametrize("m", [N, N * CLASSES])
def test_kare_is_gcv_in_other_units(m):
    matrix = kernel(m)
    assert kare(matrix, LABELS, 0.2) == pytest.approx(gcv_error(matrix, LABELS, 0.2 * m) * N / m)


def test_gcv_is_leave_one_out_where_all_samples_are_alike():
    labels = np.array([0, 1, 0, 1])
    circulant = np.array([[4.0, 1, 0.5, 1], [1, 4, 1, 0.5], [0.5, 1, 4, 1], [1, 0.5, 1, 4]])
    assert gcv_error(circulant, labels, 0.1) == pytest.approx(leave_one_out_error(circulant, labels, 0.1))


def test_a_full_kernel_with_independent_outputs_scores_like_its_factor():
    factor = kernel(N)
    full = np.kron(factor, np.eye(CLASSES))
    assert leave_one_out_error(full, LABELS, 0.4) == pytest.approx(leave_one_out_error(factor, LABELS, 0.4))
    assert gcv_error(full, LABELS, 0.4) == pytest.approx(gcv_error(factor, LABELS, 0.4))
    found = kernel_regression_accuracy(full, LABELS, 0.4, seed=3)
    assert found == kernel_regression_accuracy(factor, LABELS, 0.4, seed=3)


def test_an_uninformative_kernel_predicts_zero():
    assert leave_one_out_error(np.eye(N), LABELS, 1.0) == pytest.approx(1)
    assert gcv_error(np.eye(N), LABELS, 1.0) == pytest.approx(1)


@pytest.mark.parametrize("score", [leave_one_out_error, gcv_error, kare, kernel_regression_accuracy])
def test_scale_of_kernel_and_ridge_together_does_not_matter(score):
    assert score(1e6 * kernel(N), LABELS, 2e5) == pytest.approx(score(kernel(N), LABELS, 0.2))


def separable(per_class, seed=0):
    """Three tight clusters on the unit sphere, so that all diagonal entries are equal."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    features = np.eye(3)[labels] + 0.05 * generator.normal(size=(len(labels), 3))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, labels


def test_regression_learns_clusters_and_nothing_from_noise():
    features, labels = separable(20)
    assert kernel_regression_accuracy(features @ features.T, labels, 0.1) == 1
    noise = [kernel_regression_accuracy(kernel(60, seed), labels, 0.1, seed=seed) for seed in range(20)]
    assert 0.2 < np.mean(noise) < 0.47


def test_regression_fits_the_larger_half_of_each_class():
    """With a kernel of equal labels a class is right where it was fitted: 2 of 3, 1 of 2 and 1 of 1 samples are."""
    labels = np.array([0, 0, 0, 1, 1, 2])
    same = (labels[:, None] == labels).astype(float)
    assert kernel_regression_accuracy(same, labels, 0.1) == 1
    other = same.copy()
    other[3:5, 3:5] = np.eye(
        2
    )  # the judged sample of class 1 knows nobody, so it falls to class 0: one of two is right
    assert kernel_regression_accuracy(other, labels, 0.1) == 0.5


def test_regression_equals_the_solution_written_out():
    features, labels = separable(4)
    matrix = features @ features.T + 0.5 * kernel(12, seed=1)
    order = np.argsort((matrix**2).sum(1))
    fitted = []
    for label in range(3):
        members = order[labels[order] == label]
        fitted += members[np.random.Generator(np.random.PCG64(7)).permutation(4)[:2]].tolist()
    judged = np.setdiff1d(np.arange(12), fitted)
    weights = np.linalg.solve(matrix[np.ix_(fitted, fitted)] + 0.3 * np.eye(6), np.eye(3)[labels[fitted]])
    right = (matrix[np.ix_(judged, fitted)] @ weights).argmax(1) == labels[judged]
    assert kernel_regression_accuracy(matrix, labels, 0.3, seed=7) == pytest.approx(right.mean())


def test_seeds_draw_other_halves():
    labels = np.arange(40) % 2
    found = {kernel_regression_accuracy(kernel(40), labels, 0.1, seed=seed) for seed in range(10)}
    assert len(found) > 1


def test_regression_needs_a_sample_to_judge():
    with pytest.raises(ScoreError, match="every class has one sample"):
        kernel_regression_accuracy(np.eye(3), np.array([0, 1, 2]), 0.1)


@pytest.mark.parametrize("score", [leave_one_out_error, gcv_error, kare, kernel_regression_accuracy])
class TestRefusals:
    @pytest.mark.parametrize("ridge", [-1.0, math.nan, math.inf])
    def test_a_ridge_that_is_none(self, score, ridge):
        with pytest.raises(ScoreError, match=r"the ridge is .*; a finite number of at least 0"):
            score(kernel(N), LABELS, ridge)

    def test_a_singular_kernel_without_ridge(self, score):
        with pytest.raises(ScoreError, match="float64 does not resolve"):
            score(np.ones((N, N)), LABELS, 0.0)
        with pytest.raises(ScoreError, match="float64 does not resolve"):
            score(np.zeros((N, N)), LABELS, 0.0)

    def test_an_indefinite_kernel(self, score):
        with pytest.raises(ScoreError, match="positive semi-definite"):
            score(-kernel(N), LABELS, 0.1)

    def test_a_kernel_of_other_samples(self, score):
        with pytest.raises(ScoreError, match="7 rows belongs neither to 8 samples"):
            score(kernel(7), LABELS, 0.1)

    def test_a_kernel_that_is_not_symmetric(self, score):
        with pytest.raises(ScoreError, match="a symmetric matrix was expected"):
            score(np.triu(kernel(N)), LABELS, 0.1)


def test_mean_eigenvalue_is_the_unit_of_a_ridge():
    assert mean_eigenvalue(kernel(5)) == pytest.approx(np.linalg.eigvalsh(kernel(5)).mean())
