"""Gradient estimates on functions whose gradient is known, and trainers that never ask for one."""

import math

import pytest
import torch
from torch import nn

from mr_core.input_transforms.low_rank.spec import LowRankSpec
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.label_mappings.iterative.spec import IterativeSpec
from mr_core.reprogrammed import ReprogrammedModel
from mr_core.trainers import TRAINERS
from mr_core.trainers.cma_es.spec import CmaEsSpec
from mr_core.trainers.directions import generator_of, moved
from mr_core.trainers.spsa.spec import SpsaSpec
from mr_core.trainers.spsa.trainer import simultaneous_estimate
from mr_core.trainers.trainer import TrainingRun
from mr_core.trainers.zeroth_order.spec import ZerothOrderSpec
from mr_core.trainers.zeroth_order.trainer import one_sided_estimate
from tests.mr_core.trainers.gradient.test_trainer import Recorder

D, DRAWS = 50, 10_000
WITHOUT_GRADIENTS = {kind: spec for kind, spec in TRAINERS.items() if kind != "gradient"}


@pytest.fixture
def quadratic():
    """`|A w - b|^2 / 2` in two parameters of 50 numbers together, and its gradient."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(D, D, generator=generator, dtype=torch.float64) / math.sqrt(D)
    target = torch.randn(D, generator=generator, dtype=torch.float64)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in ((4, 5), 30)]

    def vector():
        return torch.cat([parameter.detach().flatten() for parameter in parameters])

    def loss():
        return float((matrix @ vector() - target).square().sum() / 2)

    return loss, parameters, matrix.T @ (matrix @ vector() - target)


def named(parameters):
    """Parameters as a rule takes them."""
    return {str(index): parameter for index, parameter in enumerate(parameters)}


def _direction_and_scale(estimate, gradient):
    estimate = estimate.double()
    cosine = torch.dot(estimate, gradient) / (estimate.norm() * gradient.norm())
    return float(cosine), float(torch.dot(estimate, gradient) / gradient.square().sum())


def test_one_sided_differences_have_the_gradient_as_their_mean(quadratic):
    loss, parameters, gradient = quadratic
    before = [parameter.detach().clone() for parameter in parameters]
    value, estimate = one_sided_estimate(
        loss, parameters, n_directions=DRAWS, smoothing=1e-4, generator=generator_of(0, 0)
    )
    cosine, scale = _direction_and_scale(estimate, gradient)
    assert cosine > 0.99
    assert scale == pytest.approx(1, abs=0.05)
    assert value == loss()
    assert all(map(torch.equal, before, parameters))


def test_simultaneous_perturbations_have_the_gradient_as_their_mean(quadratic):
    loss, parameters, gradient = quadratic
    value, estimate = simultaneous_estimate(loss, parameters, n_draws=DRAWS, width=1e-4, generator=generator_of(0, 0))
    cosine, scale = _direction_and_scale(estimate, gradient)
    assert cosine > 0.99
    assert scale == pytest.approx(1, abs=0.05)
    assert value == pytest.approx(loss(), rel=1e-4)


def test_a_step_draws_the_same_whatever_was_drawn_before():
    first = torch.rand(3, generator=generator_of(7, 4))
    assert torch.equal(first, torch.rand(3, generator=generator_of(7, 4)))
    assert not torch.equal(first, torch.rand(3, generator=generator_of(7, 5)))
    assert not torch.equal(first, torch.rand(3, generator=generator_of(8, 4)))


def test_parameters_are_put_back_to_the_bit_even_after_an_error():
    parameter = nn.Parameter(torch.rand(5))
    before = parameter.detach().clone()

    def fail():
        with moved([parameter], torch.ones(5), by=0.1):
            assert not torch.equal(parameter, before)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(parameter, before)


def test_the_correction_is_the_papers(quadratic):
    """`m_k = b m_(k-1) + g_k`, a step along `g_k + b m_k`, at `a / (k + o)^alpha` from k = 1 (arXiv:2303.14773)."""
    _, parameters, _ = quadratic
    spec = SpsaSpec(rate=0.3, offset=2, rate_decay=0.7, correction=0.8)
    rule = spec.build().rule(named(parameters), seed=3)
    expected = torch.cat([parameter.detach().flatten() for parameter in parameters])
    momentum = torch.zeros(D, dtype=torch.float64)
    for k, gradient in enumerate(torch.randn(4, D, generator=generator_of(0, 1), dtype=torch.float64), start=1):
        momentum = 0.8 * momentum + gradient
        expected = expected - 0.3 / (k + 2) ** 0.7 * (gradient + 0.8 * momentum)
        rule.gradient = lambda _loss, *, step, g=gradient: _leave(rule.parameters, g)
        rule.move(None, step=k - 1, steps_per_epoch=1)
    found = torch.cat([parameter.detach().flatten() for parameter in parameters])
    torch.testing.assert_close(found, expected)


def _leave(parameters, gradient):
    for parameter, part in zip(parameters, gradient.split([20, 30]), strict=True):
        parameter.grad = part.view_as(parameter).clone()
    return 0.0


@pytest.mark.parametrize(
    "spec",
    [
        ZerothOrderSpec(directions=8, epochs=6, batch_size=8, learning_rate=0.05, selection="last"),
        SpsaSpec(draws=8, epochs=6, batch_size=8, rate=0.3, width=0.05, selection="last"),
        CmaEsSpec(population=16, epochs=6, batch_size=8, selection="last"),
    ],
    ids=["zeroth_order", "spsa", "cma_es"],
)
def test_the_loss_falls_though_nothing_asks_for_a_gradient(tiny_backbone, tiny_images, spec, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a gradient was asked for")

    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "grad", refuse)
    transform = LowRankSpec(rank=1).build(tiny_backbone.preprocessing)
    model = ReprogrammedModel(transform, tiny_backbone, FrequentSpec().build(tiny_backbone, ("a", "b", "c")))
    recorder = Recorder()
    data = tiny_images(n=24, size=transform.image_size)
    run = TrainingRun(train=data, validation=None, observer=recorder, device=torch.device("cpu"), seed=0)
    assert spec.build().train(model, run).kept_epoch == 5
    losses = [row["train_loss"] for row in recorder.rows]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "spec",
    [
        ZerothOrderSpec(directions=1, epochs=2, batch_size=8, optimizer="sgd", learning_rate=1e-12),
        SpsaSpec(draws=1, epochs=2, batch_size=8, rate=1e-12),
        CmaEsSpec(population=4, epochs=2, batch_size=8, deviation=1e-12),
    ],
    ids=["zeroth_order", "spsa", "cma_es"],
)
def test_what_never_betters_its_start_stays_there(tiny_backbone, tiny_images, spec):
    """Steps too small to matter: the adapter is the untrained one, told as epoch -1."""
    mapping = IterativeSpec().build(tiny_backbone, ("a", "b", "c"))
    transform = LowRankSpec(rank=1).build(tiny_backbone.preprocessing)
    model = ReprogrammedModel(transform, tiny_backbone, mapping)
    start = [parameter.detach().clone() for parameter in model.adapter_parameters()]
    train, validation = (tiny_images(n=24, size=transform.image_size, seed=seed) for seed in (0, 1))
    recorder = Recorder()
    run = TrainingRun(train=train, validation=validation, observer=recorder, device=torch.device("cpu"), seed=0)
    assert spec.build().train(model, run).kept_epoch == -1
    assert all(map(torch.equal, start, model.adapter_parameters()))
    by_hand = IterativeSpec().build(tiny_backbone, ("a", "b", "c"))
    outputs = model.backbone_outputs(train.batch(slice(None), torch.device("cpu"))).detach()
    by_hand.fit(outputs, torch.from_numpy(train.labels))
    assert torch.equal(mapping.matrix(), by_hand.matrix())
    assert len(recorder.rows) == 2
