import pytest
import torch
from torch import nn

from mr_core.errors import KernelError
from mr_core.ntk import empirical_ntk
from mr_core.ntk.low_rank import nystrom, random_projection
from mr_core.ntk.operator import KernelOperator


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def samples():
    return torch.randn(30, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_nystrom_equals_the_pseudo_inverse_written_out():
    kernel, rows = empirical_ntk(perceptron(), samples()), [2, 17, 40, 41, 80]
    columns = kernel[:, rows]
    expected = columns @ torch.linalg.pinv(kernel[rows][:, rows]) @ columns.T
    for operator in (kernel, KernelOperator(perceptron(), samples())):
        found = nystrom(operator, rows)
        torch.testing.assert_close(found.dense(), expected)
        torch.testing.assert_close(found.top_eigenvalues(5), torch.linalg.eigvalsh(expected).flip(0)[:5])
        assert found.trace == pytest.approx(float(expected.trace()))


def test_nystrom_reproduces_the_rows_of_its_landmarks():
    kernel, rows = empirical_ntk(perceptron(), samples()), [5, 3, 60]
    torch.testing.assert_close(nystrom(kernel, rows).dense()[rows], kernel[rows])


def test_nystrom_is_exact_where_the_landmarks_span_the_kernel():
    factor = torch.randn(40, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = nystrom(factor @ factor.T, range(10))  # ten landmarks of rank four: six are left out
    assert found.factor.shape == (40, 4)
    torch.testing.assert_close(found.dense(), factor @ factor.T)


def test_nystrom_of_a_zero_kernel_is_zero():
    found = nystrom(torch.zeros(4, 4).double(), [0, 1])
    assert found.factor.shape == (4, 0)
    assert found.trace == 0


def test_projection_comes_nearer_with_more_directions():
    operator, kernel = KernelOperator(perceptron(), samples()), empirical_ntk(perceptron(), samples())
    errors = {
        k: relative_error(random_projection(operator, k, generator=torch.Generator().manual_seed(4)).dense(), kernel)
        for k in (20, 2000)
    }
    assert errors[2000] < 0.15 < errors[20]


def test_projection_is_that_of_the_jacobian_on_random_signs():
    operator = KernelOperator(perceptron(), samples())
    found = random_projection(operator, 6, generator=torch.Generator().manual_seed(5))
    signs = operator.random_directions(6, generator=torch.Generator().manual_seed(5))
    module = perceptron()
    rows = []
    for value in module(samples()).flatten():
        gradients = torch.autograd.grad(value, list(module.parameters()), retain_graph=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    flat = torch.cat([part.flatten(1) for part in signs.values()], dim=1)
    torch.testing.assert_close(found.factor, torch.stack(rows) @ flat.T / 6**0.5)


def test_projection_in_groups_of_directions(monkeypatch):
    monkeypatch.setattr("mr_core.ntk.operator.DIRECTION_BYTES", 1)
    operator = KernelOperator(perceptron(), samples())
    assert random_projection(operator, 3, generator=torch.Generator()).factor.shape == (90, 3)


@pytest.mark.parametrize("method", ["nystrom", "random_projection"])
def test_has_no_smallest_eigenvalue_to_give(method):
    operator = KernelOperator(perceptron(), samples())
    if method == "nystrom":
        found = nystrom(operator, range(90))  # not even where it is exact
    else:
        found = random_projection(operator, 5, generator=torch.Generator())
    assert found.method == method
    assert (found.lambda_min, found.condition_number, found.reason) == (None, None, "approximate")
    rank = found.factor.shape[1]
    with pytest.raises(KernelError, match=rf"found {rank + 1} eigenvalues asked of a kernel of rank {rank} at most"):
        found.top_eigenvalues(rank + 1)


@pytest.mark.parametrize("landmarks", [[], [1, 1], [4], [-1]])
def test_refuses_landmarks_that_are_no_rows(landmarks):
    with pytest.raises(KernelError, match="expected different rows from 0 to 3"):
        nystrom(torch.eye(4).double(), landmarks)


def test_refuses_no_directions():
    with pytest.raises(KernelError, match="found 0 random directions, expected at least 1"):
        random_projection(KernelOperator(perceptron(), samples()), 0, generator=torch.Generator())


def test_over_the_cap_names_the_need():
    with pytest.raises(KernelError, match="Nystrom factor of the full kernel needs"):
        nystrom(torch.eye(4).double(), [0], memory_cap=10)
    found = nystrom(torch.eye(4).double(), [0])
    with pytest.raises(KernelError, match="approximate matrix of the full kernel needs"):
        found.dense(memory_cap=10)
    with pytest.raises(KernelError, match="random projection of the full kernel needs"):
        random_projection(KernelOperator(perceptron(), samples()), 5, generator=torch.Generator(), memory_cap=10)
