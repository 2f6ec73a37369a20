import numpy as np
import pytest
import torch
from torch import nn

from mr_core.errors import KernelError
from mr_core.ntk import empirical_ntk
from mr_core.ntk.operator import KernelOperator, rademacher
from mr_core.ntk.quadrature import spectral_density


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def random_kernel(m=60):
    rows = torch.randn(m, 40, generator=generator(2), dtype=torch.float64) * torch.linspace(2, 0.1, 40)
    return rows @ rows.T


def test_mean_is_the_trace_over_n_within_its_error_bars():
    kernel = random_kernel()
    found = spectral_density(kernel, generator=generator(), n_probes=40, n_steps=20)
    mean = found.mean()
    assert abs(mean.value - float(kernel.trace()) / 60) < 4 * mean.standard_error
    assert mean.standard_error < 0.1 * mean.value


def test_diagonal_kernel_is_known_exactly():
    """Signs do not matter there: each of m steps' nodes is an eigenvalue, each weight 1 / m."""
    values = torch.linspace(1, 3, 12).double()
    found = spectral_density(torch.diag(values), generator=generator(), n_probes=3, n_steps=12)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        torch.testing.assert_close(nodes, values)
        torch.testing.assert_close(weights, torch.full((12,), 1 / 12).double())
    assert found.mean().standard_error == pytest.approx(0, abs=1e-12)
    assert found.mean_of(torch.log).value == pytest.approx(float(values.log().mean()))


def test_moments_are_those_of_the_probes_up_to_twice_the_steps():
    kernel = random_kernel() / 100
    found = spectral_density(kernel, generator=generator(), n_probes=2, n_steps=4)
    probes = rademacher((60, 2), generator=generator()) / 60**0.5
    for power in range(8):
        expected = (probes * (torch.linalg.matrix_power(kernel, power) @ probes)).sum(0)
        torch.testing.assert_close((found.weights * found.nodes**power).sum(1), expected)


def test_repeated_eigenvalues_exhaust_the_krylov_space():
    kernel = torch.diag(torch.tensor([4.0] * 6 + [1.0] * 2)).double()
    found = spectral_density(kernel, generator=generator(), n_probes=5, n_steps=8)
    assert found.mean() == (pytest.approx(3.25), pytest.approx(0, abs=1e-12))
    at_four = torch.where((found.nodes - 4).abs() < 1e-9, found.weights, 0).sum(1)
    torch.testing.assert_close(at_four, torch.full((5,), 0.75).double())


def test_a_zero_kernel_has_its_density_at_zero():
    found = spectral_density(torch.zeros(5, 5).double(), generator=generator(), n_probes=2)
    assert found.mean() == (0, 0)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(2).double())


def test_density_is_that_of_the_eigenvalues_spread_out():
    kernel = random_kernel()
    values = torch.linalg.eigvalsh(kernel)
    width = 15.0
    grid = torch.linspace(-100, float(values[-1]) + 100, 2000).double()
    found = spectral_density(kernel, generator=generator(), n_probes=200, n_steps=40).density(grid, width=width)
    expected = torch.exp(-((grid[:, None] - values) ** 2) / (2 * width**2)).mean(1) / (width * np.sqrt(2 * np.pi))
    assert float(torch.trapezoid(found, grid)) == pytest.approx(1, abs=1e-3)
    assert float(torch.trapezoid((found - expected).abs(), grid)) < 0.05


def test_without_the_matrix():
    torch.manual_seed(0)
    module, inputs = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 2)).double(), torch.randn(20, 4).double()
    dense = spectral_density(empirical_ntk(module, inputs), generator=generator(), n_probes=3, n_steps=10)
    free = spectral_density(KernelOperator(module, inputs), generator=generator(), n_probes=3, n_steps=10)
    torch.testing.assert_close(free.nodes, dense.nodes)
    torch.testing.assert_close(free.weights, dense.weights)


def test_has_no_smallest_eigenvalue_to_give():
    found = spectral_density(torch.eye(3).double(), generator=generator())
    assert found.method == "stochastic_lanczos_quadrature"
    assert (found.lambda_min, found.condition_number, found.reason) == (None, None, "approximate")


def test_refuses_what_gives_no_estimate():
    with pytest.raises(KernelError, match="found 1 random probes, expected at least 2"):
        spectral_density(torch.eye(3).double(), generator=generator(), n_probes=1)
    with pytest.raises(KernelError, match="found 0 steps of Lanczos, expected at least 1"):
        spectral_density(torch.eye(3).double(), generator=generator(), n_steps=0)
    with pytest.raises(KernelError, match="Krylov basis of the full kernel needs"):
        spectral_density(torch.eye(30).double(), generator=generator(), memory_cap=100)
    with pytest.raises(KernelError, match=r"found a width of 0\.0 .*, expected more than 0"):
        spectral_density(torch.eye(3).double(), generator=generator()).density(torch.zeros(1).double(), width=0.0)
