import pytest
import torch
from torch import nn

from mr_core.errors import KernelError
from mr_core.ntk import empirical_ntk
from mr_core.ntk.operator import KernelOperator, rademacher


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def samples(n=20):  # more than a chunk
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def vectors(m, b=3):
    return torch.randn(m, b, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


class Cube(torch.autograd.Function):
    """Twice differentiable backwards, without a forward-mode rule."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values**3

    @staticmethod
    def backward(ctx, gradient):
        (values,) = ctx.saved_tensors
        return 3 * values**2 * gradient


class Cubes(nn.Module):
    def forward(self, values):
        return Cube.apply(values)


class CountsItself(nn.Module):
    """Reads a value out of a tensor, has a parameter that does nothing and an output that depends on none."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, inputs):
        found = self.linear(inputs) * (2.0 if float(inputs.sum()) > 0 else 1.0)
        return torch.cat([found, torch.ones_like(found[:, :1])], dim=1)


MODULES = {
    "perceptron": perceptron,
    "no forward mode": lambda: nn.Sequential(nn.Linear(4, 5), Cubes(), nn.Linear(5, 3)).double(),
    "no vmap": lambda: CountsItself().double(),
    "normalised": lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).double(),
}


@pytest.mark.parametrize("build", MODULES.values(), ids=MODULES)
def test_products_match_the_dense_matrix(build):
    torch.manual_seed(3)
    module, inputs = build(), samples()
    if isinstance(module, CountsItself):
        inputs = inputs.abs()  # so that a chunk decides as each of its samples does
    kernel, operator = empirical_ntk(module, inputs), KernelOperator(module, inputs)
    assert operator.shape == kernel.shape
    torch.testing.assert_close(operator @ vectors(60), kernel @ vectors(60), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(operator @ vectors(60)[:, 0], kernel @ vectors(60)[:, 0], rtol=1e-10, atol=1e-10)
    assert (operator @ vectors(60, b=0)).shape == (60, 0)


@pytest.mark.parametrize("mapping", ["frequent", "text", "trained linear"])
def test_products_of_a_reprogrammed_model(reprogrammed, images, mapping):
    model = reprogrammed(mapping)
    kernel = empirical_ntk(model, images)
    found = KernelOperator(model, images) @ vectors(len(kernel))
    torch.testing.assert_close(found, kernel @ vectors(len(kernel)), rtol=1e-10, atol=1e-10)


def test_takes_only_the_parameters_asked_for():
    module, inputs = perceptron(), samples()
    last = list(module[2].parameters())
    expected = empirical_ntk(module, inputs, parameters=last) @ vectors(60)
    operator = KernelOperator(module, inputs, parameters=last)
    torch.testing.assert_close(operator @ vectors(60), expected)
    assert operator.n_parameters == 24


def test_columns_in_groups_give_the_same_products(monkeypatch):
    module, inputs = perceptron(), samples()
    monkeypatch.setattr("mr_core.ntk.operator.DIRECTION_BYTES", 1)
    operator = KernelOperator(module, inputs)
    assert operator.directions_at_once == 1
    torch.testing.assert_close(operator @ vectors(60), empirical_ntk(module, inputs) @ vectors(60))


def test_single_precision_gives_double_with_its_rounding():
    kernel = empirical_ntk(perceptron(), samples())
    found = KernelOperator(perceptron().float(), samples()) @ vectors(60)
    assert found.dtype == torch.float64
    assert float((found - kernel @ vectors(60)).norm() / (kernel @ vectors(60)).norm()) < 1e-5


def test_trace_lies_within_its_error_bars():
    module, inputs = perceptron(), samples()
    trace = float(empirical_ntk(module, inputs).trace())
    estimate = KernelOperator(module, inputs).trace_estimate(100, generator=torch.Generator().manual_seed(4))
    assert abs(estimate.value - trace) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.1 * trace


def test_trace_of_independent_rows_is_exact():
    module = nn.Linear(6, 1, bias=False).double()
    estimate = KernelOperator(module, 2 * torch.eye(6).double()).trace_estimate(2, generator=torch.Generator())
    assert estimate == (24, 0)  # a diagonal kernel: signs do not matter


def test_leaves_the_module_as_it_was():
    module, inputs = MODULES["normalised"](), samples()
    module[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    KernelOperator(module, inputs) @ vectors(60)
    assert [part.training for part in module] == [True, False, True, True]
    assert all(parameter.grad is None for parameter in module.parameters())
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_signs_are_signs():
    signs = rademacher((1000,), generator=torch.Generator().manual_seed(0))
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.1


@pytest.mark.parametrize("shape", [(59,), (59, 2), (60, 2, 1), ()])
def test_refuses_vectors_that_do_not_fit(shape):
    with pytest.raises(KernelError, match=r"found vectors of shape .*, expected \(60,\) or that by b"):
        KernelOperator(perceptron(), samples()) @ torch.zeros(shape).double()


def test_refuses_a_module_with_nothing_to_train():
    with pytest.raises(KernelError, match="nothing to train"):
        KernelOperator(perceptron().requires_grad_(False), samples())


def test_refuses_an_error_bar_from_one_probe():
    with pytest.raises(KernelError, match="found 1 random probes, expected at least 2"):
        KernelOperator(perceptron(), samples()).trace_estimate(1, generator=torch.Generator())


def test_what_is_not_finite_is_named():
    inputs = samples()
    inputs[3] = float("nan")
    with pytest.raises(KernelError, match=r"the gradient of 0\.weight is not finite"):
        KernelOperator(perceptron(), inputs) @ vectors(60)
    operator = KernelOperator(perceptron(), inputs)
    with pytest.raises(KernelError, match="not finite at sample 3, output 0"):
        operator.push(operator.random_directions(1, generator=torch.Generator()))
