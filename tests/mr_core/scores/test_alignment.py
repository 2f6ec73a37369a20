import numpy as np
import pytest
import torch

from mr_core.errors import ScoreError
from mr_core.scores.alignment import centred_kernel_alignment, kernel_target_alignment


def one_hot(labels):
    return torch.nn.functional.one_hot(torch.tensor(labels)).double()


def random_kernel(m, seed=0):
    rows = torch.randn(m, m + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows @ rows.T


def test_equals_the_formula_with_written_out_centring():
    targets, kernel = one_hot([0, 1, 2, 0, 1]), random_kernel(5)
    centring = torch.eye(5, dtype=torch.float64) - 1 / 5
    left, right = centring @ kernel @ centring, centring @ targets @ targets.T @ centring
    expected = (left * right).sum() / (left.norm() * right.norm())
    assert kernel_target_alignment(kernel, targets) == pytest.approx(float(expected))


def test_full_kernel_takes_the_flattened_centred_labels():
    targets, kernel = one_hot([0, 1, 1, 0]), random_kernel(8)
    centring = torch.kron(torch.eye(4).double() - 1 / 4, torch.eye(2).double())
    label = (targets - targets.mean(0)).flatten()
    centred = centring @ kernel @ centring
    expected = label @ centred @ label / (centred.norm() * (label @ label))
    assert kernel_target_alignment(kernel, targets) == pytest.approx(float(expected))


def test_kronecker_factor_gives_the_value_of_the_product():
    targets, kernel = one_hot([0, 1, 2, 0, 1]), random_kernel(5)
    product = torch.kron(kernel, torch.eye(3).double())
    assert kernel_target_alignment(kernel, targets, copies=3) == pytest.approx(
        kernel_target_alignment(product, targets)
    )


def test_is_one_for_the_label_kernel_and_zero_for_a_constant_one():
    targets = one_hot([0, 1, 2, 0, 1])
    assert kernel_target_alignment(targets @ targets.T, targets) == pytest.approx(1)
    assert kernel_target_alignment(torch.ones(5, 5).double(), targets) == 0


def test_refuses_a_kernel_of_other_samples():
    with pytest.raises(ScoreError, match="7 rows"):
        kernel_target_alignment(random_kernel(7), one_hot([0, 1, 2, 0, 1]))


def test_is_zero_where_centring_leaves_rounding_alone():
    assert kernel_target_alignment(np.full((7, 7), 0.1), np.eye(7)) == 0


def test_refuses_numbers_that_are_not_finite():
    kernel = random_kernel(5)
    kernel[1, 2] = float("nan")
    with pytest.raises(ScoreError, match=r"kernel\[1, 2\] is nan"):
        kernel_target_alignment(kernel, one_hot([0, 1, 2, 0, 1]))


def test_alignment_of_kernels_equals_the_formula():
    left, right = random_kernel(5), random_kernel(5, seed=1)
    centring = torch.eye(5, dtype=torch.float64) - 1 / 5
    first, second = centring @ left @ centring, centring @ right @ centring
    expected = (first * second).sum() / (first.norm() * second.norm())
    assert centred_kernel_alignment(left, right) == pytest.approx(float(expected))
    assert centred_kernel_alignment(left, 3 * left + 2) == pytest.approx(1)
    assert centred_kernel_alignment(left, np.ones((5, 5))) == 0


def test_refuses_kernels_of_other_samples():
    with pytest.raises(ScoreError, match="kernels of 5 and 6 samples"):
        centred_kernel_alignment(random_kernel(5), random_kernel(6))
