import numpy as np
import pytest
import torch
from torch import nn

from mr_core.errors import KernelError
from mr_core.ntk import empirical_ntk
from mr_core.ntk.lanczos import top_eigenpairs
from mr_core.ntk.operator import KernelOperator


def with_eigenvalues(values, seed=0):
    values = torch.as_tensor(values, dtype=torch.float64)
    noise = torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vectors = torch.linalg.qr(noise).Q
    kernel = (vectors * values) @ vectors.T
    return (kernel + kernel.T) / 2


def generator():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("block_size", [1, 4])
@pytest.mark.parametrize(
    "values",
    [np.geomspace(1, 1e-9, 120), np.linspace(2, 1, 120), np.r_[np.ones(2), np.geomspace(0.5, 1e-3, 118)]],
    ids=["decaying", "flat", "pair at the top"],
)
def test_equals_the_dense_eigenpairs(values, block_size):
    kernel = with_eigenvalues(values)
    found = top_eigenpairs(kernel, 12, generator=generator(), block_size=block_size, max_products=120)
    expected = np.sort(values)[::-1][:12]
    if block_size > 1 or expected[0] > expected[1]:
        np.testing.assert_allclose(found.values, expected, rtol=1e-7)
    torch.testing.assert_close(found.vectors.T @ found.vectors, torch.eye(12).double())
    residuals = (kernel @ found.vectors - found.vectors * found.values).norm(dim=0)
    torch.testing.assert_close(found.residuals, residuals, rtol=1e-3, atol=1e-13)
    assert float(residuals.max()) <= 1e-8 * expected[0]


def test_an_eigenvalue_repeated_as_often_as_the_block_is_wide_comes_complete():
    kernel = with_eigenvalues([3.0] * 5 + [2.0] * 5 + list(np.linspace(1, 0, 90)))
    found = top_eigenpairs(kernel, 12, generator=generator(), block_size=5)
    np.testing.assert_allclose(found.values, [3.0] * 5 + [2.0] * 5 + [1.0, 1 - 1 / 89], atol=1e-8)


def test_an_invariant_subspace_is_left_for_new_directions():
    kernel = torch.diag(torch.tensor([3.0] * 7 + [2.0] * 3 + [0.0] * 20)).double()
    found = top_eigenpairs(kernel, 10, generator=generator(), block_size=2)
    np.testing.assert_allclose(found.values, [3.0] * 7 + [2.0] * 3, atol=1e-12)


def test_a_zero_kernel_has_zero_eigenvalues():
    found = top_eigenpairs(torch.zeros(9, 9).double(), 9, generator=generator(), block_size=2)
    assert found.values.abs().max() == 0
    assert found.vectors.isfinite().all()


@pytest.mark.parametrize("k", [1, 30])
def test_whole_kernel_and_its_very_top(k):
    kernel = with_eigenvalues(np.geomspace(1, 1e-3, 30))
    found = top_eigenpairs(kernel, k, generator=generator())
    np.testing.assert_allclose(found.values, np.geomspace(1, 1e-3, 30)[:k], rtol=1e-8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_without_the_matrix(dtype, tolerance):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3)).double()
    inputs = torch.randn(40, 6).double()
    expected = torch.linalg.eigvalsh(empirical_ntk(module, inputs)).flip(0)[:8]
    operator = KernelOperator(module.to(dtype), inputs)
    found = top_eigenpairs(operator, 8, generator=generator(), block_size=3)
    assert float((found.values - expected).abs().max() / expected[0]) < tolerance
    assert found.n_products < 120


def test_has_no_smallest_eigenvalue_to_give():
    found = top_eigenpairs(with_eigenvalues([2.0, 1.0]), 2, generator=generator())
    assert (found.method, found.lambda_min, found.condition_number, found.reason) == (
        "lanczos",
        None,
        None,
        "approximate",
    )
    with pytest.raises(AttributeError):
        found.lambda_min = 1.0


def test_says_where_it_did_not_converge():
    with pytest.raises(KernelError, match=r"after 12 products the largest residual of 10 eigenpairs is .* allow more"):
        top_eigenpairs(with_eigenvalues(np.linspace(2, 1, 100)), 10, generator=generator(), max_products=12)


@pytest.mark.parametrize("k", [0, 6])
def test_refuses_more_eigenpairs_than_there_are(k):
    with pytest.raises(KernelError, match=rf"found k = {k} eigenpairs to compute, expected 1 to 5"):
        top_eigenpairs(torch.eye(5).double(), k, generator=generator())


def test_refuses_an_empty_block():
    with pytest.raises(KernelError, match="found a block of 0 vectors, expected at least 1"):
        top_eigenpairs(torch.eye(5).double(), 2, generator=generator(), block_size=0)


def test_refuses_a_basis_over_the_cap():
    with pytest.raises(KernelError, match="Krylov basis of the full kernel needs"):
        top_eigenpairs(torch.eye(5).double(), 2, generator=generator(), memory_cap=100)
