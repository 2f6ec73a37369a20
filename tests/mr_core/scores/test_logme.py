import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mr_core.errors import ScoreError
from mr_core.scores.logme import EPSILON, MAX_STEPS, TOLERANCE, logme

REFERENCES = Path(__file__).parents[2] / "references"


def reference(case):
    return np.load(REFERENCES / f"transferability_{case}.npz")


@pytest.mark.parametrize("form", ["evidence", "published"])
def test_equals_the_published_code_where_samples_outnumber_dimensions(form):
    stored = reference("tall")
    found = logme(stored["features"], stored["labels"], form=form)
    assert found == pytest.approx(float(stored["logme_fixed_point"]), abs=1e-6)


def test_published_form_equals_the_published_code_where_dimensions_outnumber_samples():
    stored = reference("wide")
    found = logme(stored["features"], stored["labels"], form="published")
    assert found == pytest.approx(float(stored["logme_fixed_point"]), abs=1e-6)


def test_evidence_is_that_of_the_first_paper_which_sums_over_all_dimensions():
    stored = reference("wide")
    found = logme(stored["features"], stored["labels"])
    assert found == pytest.approx(float(stored["logme_icml"]), abs=1e-3)  # it stops iterating earlier
    assert found == pytest.approx(-0.0683, abs=1e-4)


def written_out(features, target):
    """The same fixed point with d x d matrices and the evidence as the density of y: normal, `I/beta + F F^T/alpha`."""
    n, d = features.shape
    alpha = beta = 1.0
    for _ in range(MAX_STEPS):
        t = alpha / beta
        precision = alpha * np.eye(d) + beta * features.T @ features
        mean = beta * np.linalg.solve(precision, features.T @ target)
        gamma = d - alpha * np.trace(np.linalg.inv(precision))
        residual = np.sum((target - features @ mean) ** 2)
        length = mean @ mean
        alpha, beta = gamma / (length + EPSILON), (n - gamma) / (residual + EPSILON)
        if abs(alpha / beta - t) <= TOLERANCE * t:
            break
    determinant = np.linalg.slogdet(alpha * np.eye(d) + beta * features.T @ features)[1]
    evidence = d * math.log(alpha) + n * math.log(beta) - determinant - beta * residual - alpha * length
    return (evidence - n * math.log(2 * math.pi)) / (2 * n)


@pytest.mark.parametrize("shape", [(30, 4), (12, 12), (10, 25)])
def test_equals_the_evidence_written_out_with_full_matrices(shape):
    features = np.random.default_rng(0).normal(size=shape)
    labels = np.arange(shape[0]) % 3
    expected = np.mean([written_out(features, (labels == label).astype(float)) for label in range(3)])
    assert logme(features, labels) == pytest.approx(expected, rel=1e-6)


def test_shuffled_labels_never_score_above_the_true_ones():
    stored = reference("wide")
    features, labels = stored["features"], stored["labels"]
    generator = np.random.default_rng(0)
    shuffled = [generator.permutation(labels) for _ in range(50)]
    assert max(logme(features, wrong) for wrong in shuffled) < logme(features, labels)


def test_width_alone_raises_the_published_form_only():
    generator = np.random.default_rng(0)
    labels = np.arange(20) % 2
    narrow, wide = generator.normal(size=(20, 40)), generator.normal(size=(20, 400))
    assert logme(wide, labels, form="published") - logme(narrow, labels, form="published") > 10
    assert abs(logme(wide, labels) - logme(narrow, labels)) < 1


def test_dimensions_that_are_always_zero_do_not_change_the_evidence():
    stored = reference("tall")
    padded = np.hstack([stored["features"], np.zeros((300, 400))])
    assert logme(padded, stored["labels"]) == pytest.approx(logme(stored["features"], stored["labels"]))


def test_classes_without_samples_do_not_count():
    stored = reference("tall")
    gaps = 3 * stored["labels"] + 1
    assert logme(stored["features"], gaps) == pytest.approx(logme(stored["features"], stored["labels"]))


@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1e3])
@pytest.mark.parametrize("shape", [(20, 4), (6, 9)])
def test_any_sensible_scale_of_features_gives_a_number(scale, shape):
    features = scale * np.random.default_rng(0).normal(size=shape)
    assert math.isfinite(logme(features, np.arange(shape[0]) % 2))


def test_refuses_features_so_large_that_numbers_run_out():
    features = 1e20 * np.random.default_rng(0).normal(size=(6, 9))
    with pytest.raises(ScoreError, match=r"LogME \(evidence\) is not finite for features of size"):
        logme(features, np.arange(6) % 2)


def test_zero_features_explain_nothing():
    labels = np.array([0, 1, 0, 1])
    assert logme(np.zeros((4, 3)), labels) == pytest.approx(logme(np.zeros((4, 300)), labels))
    with pytest.raises(ScoreError, match=r"LogME \(published\) is not finite for features of size 0"):
        logme(np.zeros((4, 9)), labels, form="published")


def test_takes_tensors():
    stored = reference("wide")
    features = torch.from_numpy(stored["features"]).requires_grad_()
    assert logme(features, torch.from_numpy(stored["labels"])) == logme(stored["features"], stored["labels"])
