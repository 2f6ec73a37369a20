import itertools
import math

import numpy as np
import pytest
import torch

from mr_core.ntk import prediction
from mr_core.ntk.kernel import KernelPart
from mr_core.ntk.prediction import (
    accuracy_interval,
    centred_over_classes,
    held_out_logits,
    label_scale,
    stratified_folds,
    training_curve,
)
from mr_core.ntk.spectrum import eigendecomposition

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
TARGETS = torch.nn.functional.one_hot(LABELS).double()
FOLDS = [torch.tensor([0, 4]), torch.tensor([1, 2, 8]), torch.tensor([3, 5, 6, 7])]


def random_kernel(m):
    rows = torch.randn(m, m + 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return rows @ rows.T


def random_logits():
    return torch.randn(9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("m", [9, 27])
def test_equals_training_without_the_fold(m, monkeypatch):
    monkeypatch.setattr(prediction, "RIDGES", (0.1,))
    kernel, initial = random_kernel(m), random_logits()
    found = held_out_logits(eigendecomposition(KernelPart(kernel)), TARGETS, FOLDS, lambda fold: initial)
    ridge = 0.1 * kernel.trace() / m
    logits = centred_over_classes(initial)
    labels = label_scale(logits, TARGETS - 1 / 3) * (TARGETS - 1 / 3)
    per_sample = m // 9
    for fold in FOLDS:
        keep = torch.tensor([i for i in range(9) if i not in fold])
        out = (fold[:, None] * per_sample + torch.arange(per_sample)).flatten()
        into = (keep[:, None] * per_sample + torch.arange(per_sample)).flatten()
        residual = (labels - logits)[keep].reshape(len(into), -1)
        inner = kernel[into][:, into] + ridge * torch.eye(len(into), dtype=torch.float64)
        learned = kernel[out][:, into] @ torch.linalg.solve(inner, residual)
        torch.testing.assert_close(found.logits[fold], logits[fold] + learned.view(len(fold), 3))


def test_a_useless_kernel_leaves_the_initial_model():
    kernel = torch.eye(9, dtype=torch.float64)
    initial = 5 * TARGETS
    found = held_out_logits(eigendecomposition(KernelPart(kernel)), TARGETS, FOLDS, lambda fold: initial)
    assert torch.equal(found.logits.argmax(1), LABELS)


def test_scale_of_the_logits_does_not_matter():
    eigen, initial = eigendecomposition(KernelPart(random_kernel(27))), random_logits()
    small = held_out_logits(eigen, TARGETS, FOLDS, lambda fold: initial)
    large = held_out_logits(eigen, TARGETS, FOLDS, lambda fold: 1000 * initial + 7)
    torch.testing.assert_close(large.logits, 1000 * small.logits)


def test_curve_equals_gradient_flow_written_out():
    kernel, initial = random_kernel(9), random_logits()
    curve = training_curve(eigendecomposition(KernelPart(kernel)), initial, TARGETS)
    centred, logits = TARGETS - 1 / 3, centred_over_classes(initial)
    residual = logits / label_scale(logits, centred) - centred
    largest = torch.linalg.eigvalsh(kernel)[-1]
    assert [row["step"] for row in curve] == list(prediction.CURVE_STEPS)
    for row in curve[:6]:
        flowed = torch.linalg.matrix_exp(-kernel / largest * row["step"]) @ residual
        assert row["loss"] == pytest.approx(float(flowed.square().sum()) / 18)
    assert all(later["loss"] <= earlier["loss"] for earlier, later in itertools.pairwise(curve))


def test_an_unresolved_direction_never_improves():
    curve = training_curve(eigendecomposition(KernelPart(torch.zeros(9, 9).double())), torch.zeros(9, 3), TARGETS)
    assert all(row["loss"] == pytest.approx(2 / 3 / 2) for row in curve)


def test_folds_cover_all_samples_once_and_spread_classes():
    labels = np.repeat([0, 1, 2], [10, 10, 5])
    folds = stratified_folds(labels, np.arange(25), n_folds=5, seed=0)
    assert sorted(torch.cat(folds).tolist()) == list(range(25))
    assert all(np.bincount(labels[fold.numpy()], minlength=3).tolist() == [2, 2, 1] for fold in folds)


def test_duplicates_share_a_fold():
    groups = np.array([0, 1, 2, 3, 0, 5, 6, 0])
    folds = stratified_folds(np.array([0, 0, 0, 0, 1, 1, 1, 1]), groups, n_folds=4, seed=0)
    assert sum({0, 4, 7} <= set(fold.tolist()) for fold in folds) == 1
    assert sorted(torch.cat(folds).tolist()) == list(range(8))


def test_interval_is_wilsons():
    low, high = accuracy_interval(40, 100)
    z = 1.6448536269514722
    for share in (low, high):  # the shares at which 0.4 lies z standard errors away
        assert abs(0.4 - share) == pytest.approx(z * math.sqrt(share * (1 - share) / 100))
    assert accuracy_interval(0, 10)[0] == 0
    assert accuracy_interval(10, 10)[1] == 1
