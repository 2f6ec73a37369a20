"""Kernels by layers against the general path."""

import pytest
import torch
from torch import nn

from mr_core.errors import KernelError
from mr_core.ntk import layered, positions
from mr_core.ntk.jacobian import jacobian_kernel
from mr_core.ntk.layered import layered_kernel
from mr_core.ntk.layers import layers_of
from mr_core.ntk.precision import exact_arithmetic
from mr_core.sources.cnn.spec import CnnSpec
from mr_core.sources.mlp.spec import MlpSpec
from mr_core.sources.resnet.spec import ResnetSpec
from mr_core.sources.vgg.spec import VggSpec

KINDS = ["full", "trace", "pseudo"]
SHAPE = (3, 8, 8)


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 5, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2)), nn.BatchNorm2d(5), nn.ReLU(inplace=True),
        nn.Conv2d(5, 4, 2, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(6), nn.ReLU(inplace=True),
        nn.Linear(6, 3, bias=False),
    )  # fmt: skip


def tokens():
    return nn.Sequential(
        nn.Unflatten(3, (2, 4)), nn.Flatten(1, 3), nn.Linear(4, 5), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
    )


NETWORKS = {
    "plain": plain,
    "tokens": tokens,
    "mlp": lambda: MlpSpec(depth=2, width=6).build(SHAPE, 3),
    "mlp in ntk form": lambda: MlpSpec(depth=2, width=6, parametrisation="ntk").build(SHAPE, 3),
    "cnn": lambda: CnnSpec(depth=2, width=4, parametrisation="ntk").build(SHAPE, 3),
    "vgg": lambda: VggSpec(depth=2, width=4).build(SHAPE, 3),
    "resnet": lambda: ResnetSpec(depth=2, width=4, parametrisation="ntk").build(SHAPE, 3),
}


def network(name):
    torch.manual_seed(0)
    module = NETWORKS[name]()
    module(torch.rand(2, *SHAPE))  # gives lazy layers their shape
    return module.double().requires_grad_(True)


def samples(n=5):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def kernels(module, inputs, *, kind="full", names=None, memory_cap=2**30):
    """By layers, and by the general path."""
    names = names or [name for name, _ in module.named_parameters()]
    settings = {"n_outputs": 3, "kind": kind, "memory_cap": memory_cap, "on_progress": lambda done, total: None}
    with exact_arithmetic(module):
        found = layered_kernel(module, inputs, names, **settings)
        return found and found.matrix, jacobian_kernel(module, inputs, names, **settings).matrix


@pytest.mark.parametrize("is_formed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "plain"])
def test_equals_the_general_path(name, kind, is_formed, monkeypatch):
    """Whether the rows of layers with many positions are formed or not."""
    monkeypatch.setattr(layered, "_is_formed", lambda layer, n_positions, *_: is_formed and n_positions > 1)
    monkeypatch.setattr(positions, "BLOCK_BYTES", 1 << 16)  # more than one block
    found, expected = kernels(network(name), samples(), kind=kind)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("is_formed", [True, False])
@pytest.mark.parametrize("wanted", [("weight", "bias"), ("weight",), ("bias",)])
def test_takes_the_parameters_that_were_asked_for(wanted, is_formed, monkeypatch):
    """Strides, dilation, uneven kernels, no bias, operations in place, and BatchNorm, which stays as it is."""
    monkeypatch.setattr(layered, "_is_formed", lambda layer, n_positions, *_: is_formed and n_positions > 1)
    module = network("plain")
    names = [name for name, _ in module.named_parameters() if name.endswith(wanted) and not name.startswith("1.")]
    found, expected = kernels(module, samples(), names=names)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_groups_of_layers_and_small_batches_give_the_same(monkeypatch):
    module = network("vgg")
    _, expected = kernels(module, samples())
    monkeypatch.setattr(layered, "CHUNK_SAMPLES", 2)
    smallest = 8 * 15 * 15 + max(parameter.numel() + 4 for parameter in module.parameters()) * 15 * 8
    found, _ = kernels(module, samples(), memory_cap=smallest)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(KernelError, match="largest Jacobian block"):
        kernels(module, samples(), memory_cap=smallest // 4)


class Twice(nn.Module):
    """One layer called twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.head(self.layer(torch.tanh(self.layer(inputs))))


class Tied(nn.Module):
    """A weight that is used beside its layer too."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        return self.head(torch.tanh(self.layer(inputs)) @ self.layer.weight)


class Unused(nn.Module):
    """Attention's own projection is a weight, and its module is never called."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, inputs):
        values = inputs.unsqueeze(1)
        return self.head(self.attention(values, values, values)[0][:, 0])


@pytest.mark.parametrize("build", [Twice, Tied, Unused, lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))])
def test_what_is_not_of_that_form_is_left_to_the_general_path(build):
    torch.manual_seed(0)
    found, _ = kernels(build().double(), torch.rand(5, 4, dtype=torch.float64))
    assert found is None


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(3, 4, 1)])
def test_overlaps_of_positions_from_shifted_pixels_are_those_of_patches(layer):
    (found,) = layers_of(layer.double(), ["weight"])
    left, right = (torch.rand(n, 3, 4, 6, dtype=torch.float64) for n in (2, 3))
    patches = [found.patches(maps) for maps in (left, right)]
    expected = torch.einsum("apf,bqf->apbq", *patches)
    torch.testing.assert_close(found.overlaps(left, right), expected)
    assert found.overlap_width == 3


def test_a_gradient_that_is_not_finite_names_sample_and_layer():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).double()
    inputs = torch.rand(5, 4, dtype=torch.float64)
    inputs[3, 1] = torch.inf
    with pytest.raises(KernelError, match=r"sample 3 is not finite \(output 0, layer 0\)") as caught:
        kernels(module, inputs)
    assert caught.value.sample == 3


def test_samples_that_see_each_other_are_left_to_the_general_path():
    """Statistics of the batch: a sample alone has an output of its own, which is what the kernel is of."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False, track_running_stats=False), nn.Flatten(), nn.LazyLinear(3)
    )
    module(torch.rand(2, *SHAPE))
    found, _ = kernels(module.double(), samples())
    assert found is None
