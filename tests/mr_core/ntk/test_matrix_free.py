"""Spectra from products alone, against the dense ones of kernels that are small enough for both."""

import pytest
import torch
from torch.nn import functional

from mr_core.errors import KernelError
from mr_core.ntk.kernel import KernelPart, MeasuredError, TangentKernel
from mr_core.ntk.matrix_free import matrix_free_spectrum
from mr_core.ntk.spectrum import eigendecomposition, spectrum

N, C, P = 100, 4, 900


@pytest.fixture(scope="module")
def matrix():
    """A kernel whose spectrum falls as that of prompts does."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(N * C, P, generator=generator, dtype=torch.float64) / torch.arange(1, P + 1) ** 0.8
    mixed = torch.linalg.qr(torch.randn(N * C, N * C, generator=generator, dtype=torch.float64)).Q
    return mixed @ (rows @ rows.T) @ mixed.T


@pytest.fixture(scope="module")
def targets():
    return functional.one_hot(torch.arange(N) % C, C).double()


@pytest.fixture(scope="module")
def dense(matrix, targets):
    part = KernelPart((matrix + matrix.T) / 2)
    kernel = TangentKernel(kind="full", n_samples=N, n_outputs=C, n_parameters=P, groups={"all": part})
    return spectrum(kernel, part, eigendecomposition(part), targets)


@pytest.fixture(scope="module")
def found(matrix, targets):
    return matrix_free_spectrum(matrix, targets, n_parameters=P, seed=0)


def test_the_top_is_that_of_the_dense_spectrum(found, dense):
    assert len(found.eigenvalues) == 50
    assert found.eigenvalues == pytest.approx(dense.eigenvalues[:50], rel=1e-5)
    assert found.label_energy == pytest.approx(dense.label_energy[:50], abs=1e-4)
    assert found.summary["label_energy"][-1][0] == 50
    assert found.summary["lambda_max"] == pytest.approx(dense.summary["lambda_max"], rel=1e-10)


def test_what_is_estimated_lies_within_its_error(found, dense):
    told = found.summary["approximation"]
    for figure in ("effective_rank", "trace"):
        error = told[f"{figure}_standard_error"]
        assert 0 < error < 0.1 * dense.summary[figure]
        assert abs(found.summary[figure] - dense.summary[figure]) < 4 * error
    assert told["largest_residual"] <= 1e-6 * found.summary["lambda_max"]
    density = told["density"]
    assert density["share_below"] + sum(density["shares"]) == pytest.approx(1)
    median = float(dense.eigenvalues[N * C // 2])
    below = density["share_below"] + sum(
        share for share, edge in zip(density["shares"], density["edges"][1:], strict=True) if edge <= median
    )
    assert below == pytest.approx(0.5, abs=0.2)  # the median's own bin counts for neither


def test_the_bottom_is_never_told_and_the_method_says_why(found, dense):
    assert set(found.summary) == set(dense.summary)
    assert (found.summary["method"], dense.summary["method"]) == ("lanczos", "dense")
    for figure in ("lambda_min", "condition_number", "numerical_rank", "kernel_target_alignment"):
        assert found.summary[figure] is None
    assert found.summary["resolution"]["reason"] is None
    assert dense.summary["approximation"] is None


def test_counting_alone_shows_a_singular_kernel(matrix, targets):
    summary = matrix_free_spectrum(matrix, targets, n_parameters=N * C - 1, seed=0).summary
    assert summary["resolution"]["reason"] == "rank_limited"


def test_a_measured_error_raises_the_limit(matrix, targets):
    error = MeasuredError(0.01, (0, 3))
    summary = matrix_free_spectrum(matrix, targets, n_parameters=P, seed=0, error=error).summary
    assert summary["resolution"]["limit"] == pytest.approx(0.01 * float(matrix.norm()), rel=0.1)
    assert summary["error"] == {"relative": 0.01, "samples": [0, 3]}


def test_same_seed_same_bytes(matrix, targets, found):
    again = matrix_free_spectrum(matrix, targets, n_parameters=P, seed=0)
    assert again.eigenvalues.tobytes() == found.eigenvalues.tobytes()
    assert again.summary == found.summary


def test_refuses_a_basis_over_the_cap(matrix, targets):
    with pytest.raises(
        KernelError, match=r"Krylov basis of the full kernel needs .* the cap is .* 'trace' or 'pseudo'"
    ):
        matrix_free_spectrum(matrix, targets, n_parameters=P, seed=0, memory_cap=2**20)


def test_a_kernel_of_zeros():
    zeros = torch.zeros(8, 8, dtype=torch.float64)
    summary = matrix_free_spectrum(zeros, torch.eye(2).repeat(2, 1).double(), n_parameters=9, seed=0).summary
    assert (summary["effective_rank"], summary["trace"], summary["lambda_max"]) == (0, 0, 0)
    assert summary["approximation"]["density"] is None
