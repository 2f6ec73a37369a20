import math

import pytest
import torch

from mr_core.scores import effective_rank, label_energies, label_energy


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
    torch.testing.assert_close(label_energies(vectors, targets)[:, 0], expected)


def test_equal_labels_have_no_energy():
    assert label_energy(torch.eye(3).double(), torch.ones(3, 1).double(), 3) == 0
