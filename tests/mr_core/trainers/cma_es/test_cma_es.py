"""The evolution strategy: on a function with a known minimum, and across an interruption."""

import numpy as np
import pytest
import torch
from torch import nn

from mr_core.errors import SpecError
from mr_core.trainers.cma_es.spec import CmaEsSpec
from tests.mr_core.trainers.test_estimators import named


class Sphere:
    """`|w - 1|^2` of the parameters as they are."""

    def __init__(self, parameters):
        self.parameters, self.taken = parameters, 0

    def value(self):
        self.taken += 1
        return float(sum((parameter.detach().double() - 1).square().sum() for parameter in self.parameters))


def _parameters():
    return [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))]


def _train(rule, loss, steps):
    return [rule.move(loss, step=step, steps_per_epoch=1) for step in steps]


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_comes_to_the_minimum_in_as_many_answers_as_it_says(covariance):
    parameters = _parameters()
    loss = Sphere(parameters)
    rule = CmaEsSpec(population=12, covariance=covariance).build().rule(named(parameters), seed=0)
    _train(rule, loss, range(120))
    assert loss.taken == 12 * 120
    assert loss.value() < 1e-6
    assert rule.learning_rate(step=120, steps_per_epoch=1) < 0.01


def test_goes_on_after_an_interruption_to_the_same_bytes():
    spec = CmaEsSpec(population=6)
    straight = _parameters()
    rule = spec.build().rule(named(straight), seed=3)
    _train(rule, Sphere(straight), range(9))

    first = _parameters()
    interrupted = spec.build().rule(named(first), seed=3)
    _train(interrupted, Sphere(first), range(4))
    kept = {name: tensor.clone() for name, tensor in interrupted.tensors().items()}
    second = _parameters()
    with torch.no_grad():
        for parameter, moved in zip(second, first, strict=True):
            parameter.copy_(moved)
    resumed = spec.build().rule(named(second), seed=3)
    beats = []
    resumed.restore(kept, beat=lambda: beats.append(1))
    assert len(beats) == 4  # a long replay is no stall
    _train(resumed, Sphere(second), range(4, 9))
    assert all(map(torch.equal, straight, second))
    assert rule.tensors()["losses"].equal(resumed.tensors()["losses"])


def test_begins_where_a_fit_has_put_the_parameters_since():
    parameters = _parameters()
    rule = CmaEsSpec(population=6, deviation=1e-3).build().rule(named(parameters), seed=0)
    with torch.no_grad():
        for parameter in parameters:
            parameter.fill_(1.0)
    rule.begin()
    assert rule.move(Sphere(parameters), step=0, steps_per_epoch=1) < 1e-3


def test_the_global_generator_is_left_alone():
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    parameters = _parameters()
    _train(CmaEsSpec().build().rule(named(parameters), seed=0), Sphere(parameters), range(2))
    assert np.random.rand() == expected


def test_a_loss_that_is_not_finite_is_told_and_moves_nothing():
    parameters = _parameters()
    rule = CmaEsSpec().build().rule(named(parameters), seed=0)
    loss = Sphere(parameters)
    loss.value = lambda: float("nan")
    assert np.isnan(rule.move(loss, step=0, steps_per_epoch=1))
    assert not any(parameter.any() for parameter in parameters)


def test_all_correlations_of_many_parameters_are_refused():
    with pytest.raises(SpecError, match="2001 parameters, a full covariance is kept of at most 2000"):
        CmaEsSpec(covariance="full").build().rule({"weight": nn.Parameter(torch.zeros(2001))}, seed=0)
