import copy

import pytest
import torch
from torch import nn

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.calibration import calibrate_batch_norm
from mr_core.backbones.description import MINI_CLIP, BackboneDescription
from mr_core.backbones.loading import load_backbone
from mr_core.engine import accelerate
from mr_core.engine.fold import fold_batch_norm


def _canvases(backbone: Backbone, n: int = 4) -> torch.Tensor:
    return torch.rand(n, 3, backbone.canvas_size, backbone.canvas_size, generator=torch.Generator().manual_seed(1))


def _calibrated(description) -> Backbone:
    backbone = load_backbone(description, random_seed=0)
    with torch.no_grad():
        calibrate_batch_norm(backbone, _canvases(backbone, 8))
    return backbone


@pytest.mark.parametrize(
    "description",
    [
        f"random:{MINI_CLIP}",
        "random:timm:resnet10t",
        "random:torchvision:mobilenet_v3_small/DEFAULT",
        BackboneDescription(id="r", library="builtin", architecture="cifar_resnet20", random_seed=0),
    ],
    ids=["mini-clip", "resnet10t", "mobilenet_v3", "cifar"],
)
def test_outputs_equal_the_stock_model(description):
    _compare(_calibrated(description), tolerance=2e-4)  # random weights amplify rounding from layer to layer


def test_trained_outputs_equal_the_stock_model():
    _compare(load_backbone(MINI_CLIP), tolerance=2e-5)


def _compare(stock: Backbone, *, tolerance: float) -> None:
    fast = accelerate(stock)
    assert fast.is_accelerated
    assert any(isinstance(module, nn.BatchNorm2d) for module in stock.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    with torch.no_grad():
        for name in stock.available_outputs:
            expected = stock(_canvases(stock), name)
            torch.testing.assert_close(
                fast(_canvases(stock), name), expected, rtol=0, atol=tolerance * float(expected.abs().max())
            )


def _prompt_gradient(backbone: Backbone, dtype: torch.dtype) -> torch.Tensor:
    canvases = _canvases(backbone).to(dtype).requires_grad_()
    backbone(canvases, "source_logits").logsumexp(1).sum().backward()
    return canvases.grad.double().flatten(1)


def test_input_gradients_agree_with_float64(tiny_backbone):
    """Smooth where no gate sits on its kink, as on these canvases; there rounding is all that differs."""
    exact = _prompt_gradient(copy.deepcopy(tiny_backbone).double(), torch.float64)
    found = _prompt_gradient(accelerate(tiny_backbone), torch.float32)
    stock = _prompt_gradient(tiny_backbone, torch.float32)
    assert float((found - exact).norm() / exact.norm()) < 1e-5
    assert float((found - stock).norm() / stock.norm()) < 1e-5


def test_of_a_rectified_network_most_samples_agree_to_rounding():
    """Where rounding moves a value across a kink of ReLU6, its gate flips and that sample's gradient jumps."""
    stock = load_backbone(MINI_CLIP)
    exact = _prompt_gradient(copy.deepcopy(stock).double(), torch.float64)
    found = _prompt_gradient(accelerate(stock), torch.float32)
    errors = (found - exact).norm(dim=1) / exact.norm(dim=1)
    assert float(errors.median()) < 1e-4
    assert float(errors.max()) < 5e-2


def test_leaves_the_stock_model_alone(tiny_backbone):
    before = {name: tensor.clone() for name, tensor in tiny_backbone.state_dict().items()}
    accelerate(tiny_backbone)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_backbone.state_dict().items())


def test_a_backbone_is_accelerated_once(tiny_backbone):
    fast = accelerate(tiny_backbone)
    assert accelerate(fast) is fast


class _Branching(nn.Module):
    """The convolution's output goes to the norm and past it: folding would change the second path."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_mean.fill_(2.0)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        convolved = self.convolution(maps)
        return self.norm(convolved) + convolved


def test_falls_back_to_the_stock_model_where_folding_is_wrong(tiny_backbone, caplog):
    tiny_backbone.source.first = nn.Sequential(_Branching(), tiny_backbone.source.first)
    with caplog.at_level("WARNING", logger="mr_core.engine.accelerate"):
        assert accelerate(tiny_backbone) is tiny_backbone
    assert "the stock model is used" in caplog.text


def test_a_norm_that_follows_something_else_stays():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)).eval()
    assert fold_batch_norm(model, lambda: model(torch.rand(1, 3, 4, 4))) == 0
