"""Known answers about the source networks: sizes, initialisation, what they compute."""

import math

import pytest
import torch
from torch import nn

from mr_core.errors import SpecError
from mr_core.sources import SOURCES
from mr_core.sources.cnn.spec import CnnSpec
from mr_core.sources.mlp.spec import MlpSpec
from mr_core.sources.network import GaussianLayer
from mr_core.sources.resnet.spec import ResnetSpec
from mr_core.sources.vgg.spec import VggSpec


def built(spec, shape=(3, 32, 32), n_classes=10, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return spec.build(shape, n_classes)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("depth", [1, 2, 5, 6])
def test_lists_the_parameters_that_it_builds(kind, depth):
    spec = SOURCES[kind](depth=depth, width=6)
    network = built(spec, (4, 37, 34), 7)
    assert sum(parameter.numel() for parameter in network.parameters()) == spec.n_parameters((4, 37, 34), 7)
    inputs = torch.rand(3, 4, 37, 34)
    assert network(inputs).shape == (3, 7)
    assert network.embed(inputs).shape == (3, spec.embedding_width) == (3, network.embedding_width)
    torch.testing.assert_close(network(inputs), network.head(network.embed(inputs)))


@pytest.mark.parametrize(
    ("spec", "by_hand"),
    [
        (MlpSpec(depth=2, width=2048), 3072 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 10 + 10),
        (CnnSpec(depth=2, width=512), 27 * 512 + 512 + 9 * 512 * 512 + 512 + 512 * 10 + 10),
        (VggSpec(depth=3, width=32), (27 + 1) * 32 + (9 * 32 + 1) * 32 + (9 * 32 + 1) * 64 + 65 * 10),
        (
            ResnetSpec(depth=3, width=32),  # stem, two blocks, a wider one with its shortcut, head
            28 * 32 + 4 * (9 * 32 + 1) * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 64 + 33 * 64 + 65 * 10,
        ),
    ],
)
def test_parameters_by_hand(spec, by_hand):
    assert spec.n_parameters((3, 32, 32), 10) == by_hand


def test_weights_and_biases_are_drawn_with_the_stated_deviations():
    network = built(MlpSpec(depth=2, width=1500)).requires_grad_(False)
    for layer, fan_in in ((network.hidden[0], 3072), (network.hidden[1], 1500)):
        assert float(layer.weight.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.01)
        assert float(layer.weight.mean()) == pytest.approx(0, abs=1e-3)
        assert float(layer.bias.std()) == pytest.approx(math.sqrt(0.1), rel=0.06)
    convolution = built(CnnSpec(depth=2, width=128)).requires_grad_(False).trunk[2]
    assert float(convolution.weight.std()) == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.01)
    unit = built(CnnSpec(depth=2, width=128, parametrisation="ntk")).requires_grad_(False).trunk[2]
    assert float(unit.weight.std()) == pytest.approx(1, rel=0.01)
    assert float(unit.bias.std()) == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("kind", SOURCES)
def test_both_parametrisations_begin_as_the_same_function(kind):
    standard, ntk = (built(SOURCES[kind](depth=3, width=8, parametrisation=p)) for p in ("standard", "ntk"))
    inputs = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(standard(inputs), ntk(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SOURCES)
def test_is_made_of_what_the_theory_covers(kind):
    allowed = (GaussianLayer, nn.ReLU, nn.AvgPool2d, nn.Identity, nn.Sequential, nn.ModuleList)
    for module in built(SOURCES[kind](depth=6, width=4), (3, 64, 64)).modules():
        own = type(module).__module__.startswith("mr_core.sources")
        assert isinstance(module, allowed) or own, module


def test_pools_by_means():
    """With its first map constant over the channels, a network's embedding is that of the mean map, worked out."""
    network = built(CnnSpec(depth=1, width=3), (1, 4, 4), 2)
    inputs = torch.rand(1, 1, 4, 4)
    convolved = torch.relu(nn.functional.conv2d(inputs, network.trunk[0].weight, network.trunk[0].bias, padding=1))
    cells = convolved.view(1, 3, 2, 2, 2, 2).mean((3, 5))
    torch.testing.assert_close(network.maps(inputs), cells)
    torch.testing.assert_close(network.embed(inputs), cells.mean((2, 3)))


def test_widths_double_from_group_to_group():
    assert [VggSpec(depth=6, width=32).width_at(i) for i in range(6)] == [32, 32, 64, 64, 128, 128]
    network = built(VggSpec(depth=6, width=4), (3, 32, 32))
    assert network.maps(torch.rand(1, 3, 32, 32)).shape == (1, 16, 4, 4)
    assert built(ResnetSpec(depth=5, width=4)).maps(torch.rand(1, 3, 32, 32)).shape == (1, 16, 8, 8)


@pytest.mark.parametrize(
    ("spec", "shape", "said", "param"),
    [
        (VggSpec(depth=6, group_size=1), (3, 32, 32), "halves its map 6 times", "architecture.depth"),
        (CnnSpec(), (8, 1, 7), "needs 2 a side", "architecture.depth"),
        (MlpSpec(width=16_384), (3, 224, 224), "expected at most 134217728", "architecture.width"),
        (CnnSpec(width=4096, depth=1), (3, 512, 512), "values for one input", "architecture.width"),
    ],
)
def test_refuses_what_does_not_fit_before_anything_is_allocated(spec, shape, said, param):
    with pytest.raises(SpecError, match=said) as refused:
        spec.check(shape, 10)
    assert refused.value.param == param


def test_the_experiments_largest_network_is_allowed():
    MlpSpec(depth=9, width=2048).check((3, 112, 112), 10)
    VggSpec(depth=5, group_size=1).check((3, 32, 32), 10)
