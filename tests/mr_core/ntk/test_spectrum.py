import numpy as np
import pytest
import torch

from mr_core.errors import KernelError
from mr_core.ntk.kernel import KernelPart, TangentKernel
from mr_core.ntk.spectrum import eigendecomposition, energy_grid, resolution_limit, spectrum

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
TARGETS = torch.nn.functional.one_hot(LABELS).double()


def with_eigenvalues(values, seed=0):
    values = torch.as_tensor(values, dtype=torch.float64)
    noise = torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vectors = torch.linalg.qr(noise).Q
    kernel = (vectors * values) @ vectors.T
    return (kernel + kernel.T) / 2


def read(part, *, kind="full", n_parameters=1000):
    kernel = TangentKernel(kind=kind, n_samples=6, n_outputs=3, n_parameters=n_parameters, groups={"all": part})
    return spectrum(kernel, part, eigendecomposition(part), TARGETS)


def test_summary_of_a_known_spectrum():
    values = np.linspace(4, 1, 18)
    found = read(KernelPart(with_eigenvalues(values)))
    np.testing.assert_allclose(found.eigenvalues, values)
    summary = found.summary
    assert summary["lambda_max"] == pytest.approx(4)
    assert summary["lambda_min"] == pytest.approx(1)
    assert summary["condition_number"] == pytest.approx(4)
    assert summary["numerical_rank"] == 18
    assert summary["trace"] == pytest.approx(values.sum())
    assert summary["resolution"] == {"limit": resolution_limit(18, summary["lambda_max"]), "reason": None}
    assert summary["label_energy"][-1] == [18, pytest.approx(1)]


def test_an_eigenvalue_below_the_limit_is_not_resolved():
    summary = read(KernelPart(with_eigenvalues([1.0] * 17 + [1e-17]))).summary
    assert summary["lambda_min"] is None
    assert summary["condition_number"] is None
    assert summary["resolution"]["reason"] == "below_precision"
    assert summary["numerical_rank"] == 17


def test_a_small_eigenvalue_above_the_limit_is_told():
    summary = read(KernelPart(with_eigenvalues([1.0] * 17 + [1e-12]))).summary
    assert summary["lambda_min"] == pytest.approx(1e-12, rel=1e-2)
    assert summary["resolution"]["reason"] is None


@pytest.mark.parametrize("kind", ["full", "trace", "pseudo"])
def test_fewer_parameters_than_rows_are_rank_limited(kind):
    part = KernelPart(with_eigenvalues(np.linspace(2, 1, 18 if kind == "full" else 6)))
    summary = read(part, kind=kind, n_parameters=17).summary
    assert summary["lambda_min"] is None
    assert summary["condition_number"] is None
    assert summary["resolution"]["reason"] == "rank_limited"


def test_a_negative_eigenvalue_is_an_error():
    with pytest.raises(KernelError, match="not positive semi-definite"):
        eigendecomposition(KernelPart(with_eigenvalues([1.0, 0.5, -1e-10])))


def test_a_zero_kernel_has_rank_zero():
    summary = read(KernelPart(torch.zeros(18, 18, dtype=torch.float64))).summary
    assert (summary["numerical_rank"], summary["effective_rank"], summary["trace"]) == (0, 0, 0)
    assert summary["resolution"]["reason"] == "below_precision"


def test_kronecker_factor_reads_like_the_product():
    factor = KernelPart(with_eigenvalues(np.linspace(3, 1, 6)), copies=3)
    short, long = read(factor), read(KernelPart(factor.dense()))
    np.testing.assert_allclose(short.eigenvalues, long.eigenvalues)
    for key in ("lambda_max", "lambda_min", "effective_rank", "trace", "kernel_target_alignment", "numerical_rank"):
        assert short.summary[key] == pytest.approx(long.summary[key])
    np.testing.assert_allclose(short.label_energy[2::3], long.label_energy[2::3])  # whole eigenspaces


def test_energy_grid_ends_at_the_number_of_eigenvalues():
    assert energy_grid(1) == [1]
    assert energy_grid(20) == [1, 2, 5, 10, 20]
    assert energy_grid(230) == [1, 2, 5, 10, 20, 50, 100, 200, 230]


def test_decomposition_over_the_cap_names_the_cheaper_kinds():
    with pytest.raises(KernelError, match="eigen-decomposition of the full kernel"):
        eigendecomposition(KernelPart(with_eigenvalues(np.ones(18))), memory_cap=1000)
