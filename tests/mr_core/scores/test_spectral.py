import math

import numpy as np
import pytest
import torch

from mr_core.errors import ScoreError
from mr_core.scores.spectral import (
    effective_rank,
    eigenpairs,
    label_energies,
    label_energy,
    participation_ratio,
    stable_rank,
)


def test_effective_rank_counts_equal_eigenvalues():
    values = torch.tensor([2.0, 2.0, 2.0, 0.0, -1e-18]).double()
    assert effective_rank(values) == pytest.approx(3)


def test_effective_rank_by_hand():
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.tensor([3.0, 1.0]).double()) == pytest.approx(math.exp(entropy))


def test_effective_rank_of_nothing_is_zero():
    assert effective_rank(torch.zeros(4).double()) == 0


def test_label_energy_is_the_projected_share():
    targets = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 1])).double()
    centred = targets - targets.mean(0)
    vectors = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()).Q
    for k in range(1, 6):
        expected = (vectors[:, :k].T @ centred).norm() ** 2 / centred.norm() ** 2
        assert label_energy(vectors, targets, k) == pytest.approx(float(expected))
    assert label_energy(vectors, targets, 5) == pytest.approx(1)


def test_full_kernel_energies_are_of_the_flattened_labels():
    targets = torch.nn.functional.one_hot(torch.tensor([0, 1, 1])).double()
    vectors = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double()).Q
    label = (targets - targets.mean(0)).flatten()
    expected = (vectors.T @ label) ** 2 / (label @ label)
    np.testing.assert_allclose(label_energies(vectors, targets)[:, 0], expected)


def test_equal_labels_have_no_energy():
    assert label_energy(torch.eye(3).double(), torch.ones(3, 1).double(), 3) == 0


def test_ranks_count_equal_eigenvalues_and_ignore_rounding():
    for rank in (effective_rank, participation_ratio, stable_rank):
        assert rank(np.array([0.0, 2.0, -1e-18, 2.0, 2.0])) == pytest.approx(3)
        assert rank(1e60 * np.array([2.0, 2.0])) == rank(1e-200 * np.array([2.0, 2.0])) == pytest.approx(2)
        assert rank(np.zeros(4)) == 0


def test_ranks_by_hand():
    values = torch.tensor([1.0, 4.0, 1.0])
    assert participation_ratio(values) == pytest.approx(36 / 18)
    assert stable_rank(values) == pytest.approx(6 / 4)


def test_ranks_are_of_traces_and_norms():
    jacobian = np.random.default_rng(0).normal(size=(6, 4))
    kernel = jacobian @ jacobian.T
    values = np.linalg.eigvalsh(kernel)
    assert participation_ratio(values) == pytest.approx(np.trace(kernel) ** 2 / np.trace(kernel @ kernel))
    assert stable_rank(values) == pytest.approx((np.linalg.norm(jacobian) / np.linalg.norm(jacobian, 2)) ** 2)
    assert stable_rank(values) <= participation_ratio(values) <= effective_rank(values) <= 4


@pytest.mark.parametrize("rank", [effective_rank, participation_ratio, stable_rank])
@pytest.mark.parametrize("values", [[1.0, float("nan")], [[1.0, 2.0]], []])
def test_ranks_refuse_what_is_no_list_of_numbers(rank, values):
    with pytest.raises(ScoreError):
        rank(np.array(values))


def test_eigenpairs_are_descending_and_put_the_kernel_together_again():
    rows = np.random.default_rng(0).normal(size=(5, 3))
    values, vectors = eigenpairs(rows @ rows.T)
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose((vectors * values) @ vectors.T, rows @ rows.T, atol=1e-12)
    with pytest.raises(ScoreError, match=r"the eigenvalue -1.000e\+00 beside a largest one of 2"):
        eigenpairs(np.diag([2.0, -1.0]))


@pytest.mark.parametrize("k", [0, 4])
def test_label_energy_refuses_eigenvectors_that_are_not_there(k):
    with pytest.raises(ScoreError, match=f"k is {k}; 1 to 3"):
        label_energy(np.eye(5)[:, :3], np.eye(5), k)


def test_label_energy_refuses_eigenvectors_of_other_samples():
    with pytest.raises(ScoreError, match="eigenvectors of 4 entries belong neither to 3 samples"):
        label_energy(np.eye(4), np.eye(3), 1)
