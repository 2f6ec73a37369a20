import copy

import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from mr_core.engine.fuse import FusedConvolution, fuse_convolutions
from mr_core.engine.sub_pixel import SubPixelGradient


class _PadsLikeTensorFlow(nn.Conv2d):
    """One row and column of zeros, below and to the right, as "same" padding gives an even side at stride 2."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(maps, (0, 1, 0, 1)))


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return (
        nn.Sequential(
            _PadsLikeTensorFlow(3, 8, 3, stride=2),
            nn.ReLU6(),
            _PadsLikeTensorFlow(8, 8, 3, stride=2, groups=8),
            nn.Hardtanh(-0.3, 0.4),
            nn.Conv2d(8, 6, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(6, 4, 1),
        )
        .requires_grad_(False)
        .to(memory_format=torch.channels_last)
    )


def _images(n: int = 3, size: int = 16) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def _fuse(model: nn.Module, size: int = 16) -> tuple[nn.Module, int]:
    fused = copy.deepcopy(model)
    return fused, fuse_convolutions(fused, lambda: fused(_images(size=size)))


def _gradient(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    leaf = images.clone().requires_grad_()
    model(leaf).square().sum().backward()
    return leaf.grad


def test_fused_and_plain_agree_in_outputs_and_gradients():
    plain = _network()
    fused, count = _fuse(plain)
    assert count == 3  # the last convolution has neither a clamp nor uneven padding
    exact = copy.deepcopy(plain).double()
    torch.testing.assert_close(fused(_images()).double(), exact(_images().double()), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        _gradient(fused, _images()).double(), _gradient(exact, _images().double()), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("change", ["size", "precision"])
def test_the_parts_run_where_fusing_does_not_apply(change):
    plain = _network()
    fused, _ = _fuse(plain)
    images = _images(size=20) if change == "size" else _images().double()
    if change == "precision":
        plain, fused = plain.double(), fused.double()
    assert torch.equal(fused(images), plain(images))


def test_per_sample_jacobians_by_vmap():
    plain = _network()
    fused, _ = _fuse(plain)
    prompt = torch.zeros(3, 16, 16)

    def rows(model: nn.Module) -> torch.Tensor:
        return vmap(jacrev(lambda delta, image: model((image + delta)[None]).mean((2, 3))[0]), in_dims=(None, 0))(
            prompt, _images()
        )

    torch.testing.assert_close(rows(fused), rows(plain), rtol=1e-5, atol=1e-6)


def test_an_output_read_elsewhere_keeps_its_value_through_the_gradient():
    """The clamped map feeds two paths; the gradient of one must not be overwritten by the other."""

    class _Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.activation = nn.ReLU()
            self.second = nn.Conv2d(4, 4, 3, padding=1)
            self.last = nn.ReLU()

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            first = self.activation(self.first(maps))
            return first + self.last(self.second(first))

    torch.manual_seed(0)
    plain = _Residual().requires_grad_(False)
    fused, count = _fuse(plain)
    assert count == 2
    torch.testing.assert_close(_gradient(fused, _images()), _gradient(plain, _images()), rtol=1e-5, atol=1e-6)


def test_a_convolution_or_activation_used_twice_stays():
    class _Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolutions = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)])
            self.activation = nn.ReLU()

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            for convolution in self.convolutions:
                maps = self.activation(convolution(maps))
            return maps

    fused, count = _fuse(_Shared())
    assert count == 0
    assert not any(isinstance(module, FusedConvolution) for module in fused.modules())


@pytest.mark.parametrize("size", [15, 16])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, 0), (3, 2, 1), (4, 2, 1), (7, 2, 3), (5, 3, 2), (2, 4, 0)]
)
def test_sub_pixel_gradient_equals_autograd(kernel, stride, padding, size):
    convolution = nn.Conv2d(3, 5, kernel, stride=stride, padding=padding, bias=False).double().requires_grad_(False)
    images = _images(size=size).double().requires_grad_()
    outputs = convolution(images)
    cotangent = torch.randn(outputs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (expected,) = torch.autograd.grad(outputs, images, cotangent)
    # One more row of zeros where the last rows of the image are seen by no output.
    short = max(0, -(-size // stride) - cotangent.shape[-1])
    found = SubPixelGradient.of(convolution.weight, stride=stride, padding=padding)(
        nn.functional.pad(cotangent, (0, short, 0, short)), (size, size)
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
