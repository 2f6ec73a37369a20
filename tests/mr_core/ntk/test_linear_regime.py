import pytest
import torch
from torch import nn
from torch.nn import functional

from mr_core.ntk.empirical import tangent_kernel
from mr_core.ntk.linear_regime import FIRST_STEPS, STEPS, first_steps, linear_regime
from mr_core.ntk.spectrum import eigendecomposition

TARGETS = functional.one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3).double()


def errors_of(model, images, *, batch_size=4):
    parameters = model.adapter_parameters()
    eigen = eigendecomposition(tangent_kernel(model, images, parameters=parameters).total())
    found = linear_regime(model, images, TARGETS, eigen, parameters=parameters, batch_size=batch_size)
    return {row["step"]: row["relative_error"] for row in found}


@pytest.mark.parametrize("mapping", ["linear", "trained linear"])
def test_a_linear_head_is_linear_at_any_step(mapping, reprogrammed, images):
    model = reprogrammed(mapping, framed=False)
    assert errors_of(model, images[..., :4, :4]) == pytest.approx(dict.fromkeys(STEPS, 0), abs=1e-9)


def test_the_error_of_a_prompt_falls_with_the_step(reprogrammed, images):
    errors = errors_of(reprogrammed("trained linear"), images)
    assert errors[0.1] == pytest.approx(10 * errors[0.01], rel=0.2)
    assert errors[0.01] < errors[0.1] < errors[1.0] < errors[10.0]


def test_it_is_the_change_of_a_step_of_gradient_descent(reprogrammed, images):
    model = reprogrammed("trained linear")
    parameters = model.adapter_parameters()
    kernel = tangent_kernel(model, images, parameters=parameters).total()
    eigen = eigendecomposition(kernel)
    error = linear_regime(model, images, TARGETS, eigen, parameters=parameters, batch_size=6, steps=(0.5,))
    before = model(images)
    (0.5 * (before - TARGETS).square().sum()).backward()
    rate = 0.5 / float(eigen.values[0])
    predicted = -rate * (kernel.dense() @ (before - TARGETS).detach().flatten()).view(6, 3)
    with torch.no_grad():
        for parameter in parameters:
            parameter -= rate * parameter.grad
        off = float((model(images) - before - predicted).norm() / predicted.norm())
    assert error == [{"step": 0.5, "relative_error": pytest.approx(off, rel=1e-6)}]


def test_parameters_are_put_back_to_the_bit(reprogrammed, images):
    model = reprogrammed("trained linear")
    before = [parameter.detach().clone() for parameter in model.adapter_parameters()]
    errors_of(model, images)
    assert all(torch.equal(old, new) for old, new in zip(before, model.adapter_parameters(), strict=True))


def test_a_frozen_adapter_stays_frozen(reprogrammed, images):
    model = reprogrammed("trained linear")
    trainable = errors_of(model, images)
    model.requires_grad_(False)
    parameters = [*model.input_transform.parameters(), *model.label_mapping.parameters()]
    eigen = eigendecomposition(tangent_kernel(model, images, parameters=parameters).total())
    rows = linear_regime(model, images, TARGETS, eigen, parameters=parameters, batch_size=4)
    assert {row["step"]: row["relative_error"] for row in rows} == pytest.approx(trainable)
    assert not any(parameter.requires_grad for parameter in parameters)


def test_a_kernel_of_zero_has_no_steps(reprogrammed, images):
    model = reprogrammed("linear")
    prompt = list(model.input_transform.parameters())
    eigen = eigendecomposition(tangent_kernel(model, images, parameters=prompt).total())
    assert linear_regime(model, images, TARGETS, eigen, parameters=prompt, batch_size=4) == []


def test_a_model_whose_parameters_take_no_part_has_no_steps(images):
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
            self.used = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, batch):
            return batch.mean((1, 2, 3))[:, None] * self.used

    model = Constant()
    eigen = eigendecomposition(tangent_kernel(model, images, parameters=[model.used]).total())
    assert linear_regime(model, images, TARGETS, eigen, parameters=[model.unused], batch_size=4) == []


def steps_of(model, images, **values):
    parameters = model.adapter_parameters()
    kernel = tangent_kernel(model, images, parameters=parameters).total()
    found = first_steps(
        model, images, TARGETS, eigendecomposition(kernel), parameters=parameters, batch_size=4, **values
    )
    return kernel, found


@pytest.mark.parametrize("mapping", ["linear", "trained linear"])
def test_the_first_steps_of_a_linear_head_are_those_predicted(mapping, reprogrammed, images):
    _, steps = steps_of(reprogrammed(mapping, framed=False), images[..., :4, :4])
    assert [row["step"] for row in steps] == list(range(FIRST_STEPS + 1))
    for row in steps:
        assert row["measured_loss"] == pytest.approx(row["predicted_loss"], rel=1e-9)
    assert steps[-1]["measured_loss"] < steps[0]["measured_loss"] == 1


def test_the_first_steps_of_a_prompt_are_gradient_descent_and_powers_of_the_kernel(reprogrammed, images):
    model = reprogrammed("trained linear")
    before = [parameter.detach().clone() for parameter in model.adapter_parameters()]
    kernel, steps = steps_of(model, images, n_steps=3)
    assert all(torch.equal(old, new) for old, new in zip(before, model.adapter_parameters(), strict=True))
    theta = kernel.dense()
    rate = 1 / float(torch.linalg.eigvalsh(theta)[-1])
    left = (model(images) - TARGETS).detach().flatten()
    first = float(left.square().sum())
    for row in steps:
        with torch.no_grad():
            measured = float((model(images) - TARGETS).square().sum())
        assert row["measured_loss"] == pytest.approx(measured / first, rel=1e-9)
        assert row["predicted_loss"] == pytest.approx(float(left.square().sum()) / first, rel=1e-6)
        left = left - rate * theta @ left
        (0.5 * (model(images) - TARGETS).square().sum()).backward()
        with torch.no_grad():
            for parameter in model.adapter_parameters():
                parameter -= rate * parameter.grad
                parameter.grad = None
