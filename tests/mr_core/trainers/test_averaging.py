"""The exponential average of the parameters, and bounded gradients, against loops."""

import pytest
import torch
from torch import nn

from mr_core.errors import SpecError
from mr_core.trainers.averaging import AveragedRule
from mr_core.trainers.gradient.spec import GradientSpec


class Linear:
    """The loss `g . w`, whose gradient is g."""

    def __init__(self, parameter, gradient):
        self.parameter, self.gradient = parameter, gradient

    def backward(self):
        self.parameter.grad = self.gradient.clone()
        return float((self.gradient * self.parameter.detach()).sum())


def test_what_is_judged_is_the_average_and_what_moves_is_not():
    parameter = nn.Parameter(torch.ones(3))
    spec = GradientSpec(optimizer="sgd", momentum=0.0, learning_rate=0.1, schedule="constant")
    rule = AveragedRule(spec.build().rule({"weight": parameter}, seed=0), [parameter], decay=0.3)
    average, moved = torch.ones(3), torch.ones(3)
    for step in range(6):
        gradient = torch.arange(3.0) + step
        rule.move(Linear(parameter, gradient), step=step, steps_per_epoch=6)
        moved = moved - 0.1 * gradient
        share = min(0.3, (1 + step) / (10 + step))
        average = share * average + (1 - share) * moved
    with rule.judged():
        torch.testing.assert_close(parameter.detach(), average)
    torch.testing.assert_close(parameter.detach(), moved)
    other = nn.Parameter(parameter.detach().clone())
    resumed = AveragedRule(spec.build().rule({"weight": other}, seed=0), [other], decay=0.3)
    resumed.restore(rule.tensors(), beat=lambda: None)
    with resumed.judged():
        torch.testing.assert_close(other.detach(), average)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"clip_value": 0.5}, [-0.5, 0.5, 0.5, 0.1]),
        ({"clip_norm": 1.0}, [-0.6, 0.64, 0.48, 0.02]),
        ({"clip_norm": "sqrt_dimension"}, [-1.2, 1.28, 0.96, 0.04]),
        ({}, [-3.0, 3.2, 2.4, 0.1]),
    ],
)
def test_a_gradient_is_bounded_before_the_step(option, expected):
    parameter = nn.Parameter(torch.zeros(4))
    spec = GradientSpec(optimizer="sgd", momentum=0.0, learning_rate=1.0, schedule="constant", **option)
    gradient = torch.tensor([-3.0, 3.2, 2.4, 0.1])
    spec.build().rule({"weight": parameter}, seed=0).move(Linear(parameter, gradient), step=0, steps_per_epoch=1)
    torch.testing.assert_close(-parameter.detach(), torch.tensor(expected), atol=2e-3, rtol=2e-3)


def test_parts_step_at_their_own_rates_and_one_schedule():
    """Two Adams by hand, of which the second begins at a tenth; both fall to a tenth in the second epoch of two."""
    rates = {"input_transform": 0.3, "input_transform.network": 0.03}
    spec = GradientSpec(learning_rate=7.0, rates=rates, epochs=2)
    names = ("input_transform.delta", "input_transform.network.0.weight", "label_mapping.weight")
    parameters = {name: nn.Parameter(torch.ones(3)) for name in names}
    rule = spec.build().rule(parameters, seed=0)
    by_hand = [nn.Parameter(torch.ones(3)) for _ in names]
    optimizers = [torch.optim.Adam([p], lr=rate) for p, rate in zip(by_hand, (0.3, 0.03, 7.0), strict=True)]
    for step in range(4):
        gradients = [torch.arange(3.0) + 1 + i + step for i in range(3)]
        rule.gradient = lambda _loss, *, step, given=gradients: _hand(parameters.values(), given)
        rule.move(None, step=step, steps_per_epoch=2)
        _hand(by_hand, gradients)
        for optimizer, rate in zip(optimizers, (0.3, 0.03, 7.0), strict=True):
            optimizer.param_groups[0]["lr"] = rate * (1 if step < 2 else 0.01)  # both drops fall on epoch 1 of two
            optimizer.step()
    for found, expected in zip(parameters.values(), by_hand, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_rate_of_no_part_is_refused():
    trainer = GradientSpec(rates={"label_maping": 0.1}).build()
    with pytest.raises(SpecError, match="'label_maping', but no parameter's name begins so: delta") as refused:
        trainer.rule({"delta": nn.Parameter(torch.zeros(2))}, seed=0)
    assert refused.value.param == "trainer.rates"


def _hand(parameters, gradients):
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return 0.0
