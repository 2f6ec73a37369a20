"""The closed form against networks of finite width and against the arc-cosine formula by hand."""

import math

import pytest
import torch

from mr_core.ntk.empirical import empirical_ntk
from mr_core.ntk.infinite import fully_connected_ntk
from mr_core.sources.mlp.spec import MlpSpec


def inputs(n=5, side=4):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) - 0.4


@pytest.mark.parametrize("depth", [1, 3])
def test_a_wide_network_has_it(depth):
    """The mean over outputs at width 2000; what is left goes down with the width."""
    images = inputs()
    limit = fully_connected_ntk(images.flatten(1), depth=depth)
    errors = []
    for width in (60, 2000):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            network = MlpSpec(depth=depth, width=width, parametrisation="ntk").build((3, 4, 4), 4)
        found = empirical_ntk(network, images, kind="trace")
        errors.append(float((found - limit).norm() / limit.norm()))
    assert errors[1] < 0.06
    assert errors[1] < errors[0]


def test_one_hidden_layer_by_hand():
    x, y = (torch.tensor([values], dtype=torch.float64) for values in ([1.0, 0.5], [-0.3, 2.0]))

    def s_0(a, b):
        return 2 * float((a * b).sum()) / 2 + 0.1

    cosine = s_0(x, y) / math.sqrt(s_0(x, x) * s_0(y, y))
    angle = math.acos(cosine)
    s_1 = 2 * math.sqrt(s_0(x, x) * s_0(y, y)) * (math.sin(angle) + (math.pi - angle) * cosine) / (2 * math.pi) + 0.1
    by_hand = s_1 + s_0(x, y) * 2 * (math.pi - angle) / (2 * math.pi)
    kernel = fully_connected_ntk(torch.cat([x, y]), depth=1)
    assert float(kernel[0, 1]) == pytest.approx(by_hand, rel=1e-12)
    # Of one point the angle is 0: relu keeps half the variance, its derivative half of all.
    assert float(kernel[0, 0]) == pytest.approx(2 * s_0(x, x) + 0.1, rel=1e-12)


def test_is_symmetric_positive_and_keeps_duplicates_singular():
    images = inputs(6).flatten(1)
    kernel = fully_connected_ntk(torch.cat([images, images[:1]]), depth=4)
    assert torch.equal(kernel, kernel.T)
    values = torch.linalg.eigvalsh(kernel)
    assert float(values[0]) == pytest.approx(0, abs=1e-12 * float(values[-1]) * 10)
    assert float(torch.linalg.eigvalsh(kernel[:6, :6])[0]) > 1e-6


def test_without_hidden_layers_it_is_linear():
    images = inputs(3).flatten(1).double()
    torch.testing.assert_close(fully_connected_ntk(images, depth=0), 2 * images @ images.T / 48 + 0.1)
