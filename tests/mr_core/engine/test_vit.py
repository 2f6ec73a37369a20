import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import MINI_CLIP, BackboneDescription, Preprocessing
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.weights import state_sha256
from mr_core.engine import accelerate, frozen_linear, vision_transformer
from mr_core.engine.agreement import gradient_agreement, output_difference, probe_canvases
from mr_core.engine.frozen_linear import FrozenLinear
from mr_core.engine.tower import quick_gelu
from mr_core.engine.vision_transformer import is_vision_transformer
from mr_core.errors import SpecError
from mr_core.ntk.jacobian import Parameters, RowsOf, looped_rows, vectorised_rows
from mr_core.ntk.precision import exact_arithmetic

SIDE, WIDTH = 24, 32
_PREPROCESSING = Preprocessing(size=SIDE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
_TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


def _open_clip(*, quick_gelu: bool = False, **vision) -> Backbone:
    vision = {"image_size": SIDE, "patch_size": 8, "width": WIDTH, "head_width": 16, "layers": 2, **vision}
    config = {"embed_dim": 12, "quick_gelu": quick_gelu, "vision_cfg": vision, "text_cfg": _TEXT}
    return _load(library="open_clip", architecture="custom", architecture_config=config)


def _timm(**arguments) -> Backbone:
    small = {"img_size": SIDE, "patch_size": 8, "embed_dim": WIDTH, "num_heads": 2, "depth": 2, "num_classes": 5}
    return _load(library="timm", architecture="vit_base_patch32_224", arguments={**small, **arguments})


def _load(**fields) -> Backbone:
    description = BackboneDescription(id="tiny-vit", preprocessing=_PREPROCESSING, random_seed=0, **fields)
    backbone = load_backbone(description)
    with torch.no_grad():  # what initialisation leaves at 0 or 1, or near it, must count too
        generator = torch.Generator().manual_seed(2)
        for parameter in backbone.source.parameters():
            if parameter.dim() < 2 or parameter.shape[0] == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return backbone


BUILDERS = {
    "open_clip": _open_clip,
    "open_clip-quickgelu": lambda: _open_clip(quick_gelu=True),
    "timm": _timm,
    "timm-pre-norm": lambda: _timm(pre_norm=True),
    "timm-no-qkv-bias": lambda: _timm(qkv_bias=False),
    "patches-that-leave-a-rest": lambda: _open_clip(patch_size=7),
}


@pytest.fixture(params=[True, False], ids=["packed", "dense"])
def is_packed(request, monkeypatch) -> bool:
    """Both forms of the products, whatever this processor would take."""
    monkeypatch.setattr(vision_transformer, "gains_by_packing", lambda dtype: request.param)
    return request.param


def _canvases(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def _gradient(backbone: Backbone, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    canvases = _canvases().to(dtype).requires_grad_()
    sum(backbone(canvases, name).square().sum() for name in backbone.available_outputs).backward()
    return canvases.grad.double()


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
@pytest.mark.usefixtures("is_packed")
def test_outputs_and_gradients_agree_with_float64(build):
    stock = build()
    fast = accelerate(stock)
    assert fast.is_accelerated
    exact = copy.deepcopy(stock).double()
    for name in stock.available_outputs:
        with torch.no_grad():
            assert _error(fast(_canvases(), name).double(), exact(_canvases().double(), name)) < 1e-5
    assert _error(_gradient(fast), _gradient(exact, torch.float64)) < 1e-5
    assert _error(_gradient(fast), _gradient(stock)) < 1e-5


@pytest.mark.parametrize("build", [_open_clip, _timm], ids=["open_clip", "timm"])
def test_the_last_block_gives_the_class_token_alone(build):
    """To rounding of float64: nothing that the class token reads is left out."""
    stock = build().double()
    weights = vision_transformer._weights(stock.source)
    block = vision_transformer.Tower(weights, dtype=torch.float64, is_packed=False)._last
    tokens = torch.randn(3, 10, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    model = stock.source.model
    last = model.visual.transformer.resblocks[-1] if hasattr(model, "visual") else model.blocks[-1]
    torch.testing.assert_close(block(tokens), last(tokens)[:, :1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("build", [_open_clip, _timm], ids=["open_clip", "timm"])
@pytest.mark.usefixtures("is_packed")
def test_per_sample_jacobians_by_vmap(build):
    fast = accelerate(build())
    prompt = torch.zeros(3, SIDE, SIDE)

    def outputs(delta: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return fast((image + delta)[None])[0]

    found = vmap(jacrev(outputs), in_dims=(None, 0))(prompt, _canvases())
    for row, image in zip(found, _canvases(), strict=True):
        leaf = prompt.clone().requires_grad_()
        values = outputs(leaf, image)
        expected = torch.stack([torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in values])
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.usefixtures("is_packed")
def test_weights_that_are_asked_for_get_their_gradients():
    """A tangent kernel of the backbone's own weights takes the stock model: the fast form has no gradient to them."""
    stock = _open_clip()
    fast = accelerate(stock)

    def rows(backbone: Backbone, name: str, of: RowsOf) -> torch.Tensor:
        state = {key: tensor.detach() for key, tensor in backbone.named_parameters()}

        def outputs(parameters: Parameters, sample: torch.Tensor) -> torch.Tensor:
            return functional_call(backbone, {**state, **parameters}, (sample[None],))[0]

        with exact_arithmetic(backbone):
            return of(outputs, {name: state[name]}, _canvases(2))

    expected = rows(stock, "source.model.visual.ln_post.weight", looped_rows)
    for of in (looped_rows, vectorised_rows):
        found = rows(fast, "source.model.visual.plain.ln_post.weight", of)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("is_packed")
def test_the_stock_model_runs_in_another_precision():
    stock = _open_clip()
    fast = accelerate(stock).double()
    assert torch.equal(_gradient(fast, torch.float64), _gradient(copy.deepcopy(stock).double(), torch.float64))
    assert torch.equal(fast.float()(_canvases()), accelerate(stock)(_canvases()))


@pytest.mark.usefixtures("is_packed")
def test_a_deep_copy_is_the_same_and_stands_alone():
    fast = accelerate(_timm())
    expected = fast(_canvases())
    twin = copy.deepcopy(fast)
    assert torch.equal(twin(_canvases()), expected)
    twin.double()
    assert torch.equal(fast(_canvases()), expected)


@pytest.mark.usefixtures("is_packed")
def test_weights_stay_as_they_were():
    stock = _open_clip()
    before = state_sha256(stock)
    fast = accelerate(stock)
    start = state_sha256(fast)
    _gradient(fast)  # packs the transposes
    assert state_sha256(fast) == start
    assert state_sha256(stock) == before
    assert fast.state_sha256 == stock.state_sha256
    assert not any(parameter.requires_grad for parameter in fast.parameters())


def test_texts_are_encoded_as_before():
    stock = _open_clip()
    assert torch.equal(accelerate(stock).encode_text(["a cat"]), stock.encode_text(["a cat"]))


@pytest.mark.parametrize(
    "build",
    [
        lambda: _open_clip(pool_type="avg"),
        lambda: _open_clip(ls_init_value=0.1),
        lambda: _open_clip(block_type="custom"),
        lambda: _open_clip(qk_norm=True),
        lambda: _open_clip(attentional_pool=True, attn_pooler_heads=4),
        lambda: _timm(global_pool="avg"),
        lambda: _timm(init_values=0.1),
        lambda: _timm(reg_tokens=2),
        lambda: _timm(qk_norm=True),
        lambda: _timm(no_embed_class=True),
    ],
    ids=["average", "layer-scale", "custom-block", "qk-norm", "attentional", "timm-average", "timm-layer-scale",
         "registers", "timm-qk-norm", "no-embed-class"],
)  # fmt: skip
def test_other_architectures_stay_stock(build):
    stock = build()
    assert not is_vision_transformer(stock.source)
    assert accelerate(stock) is stock


def test_a_tower_that_is_wrong_is_not_used(monkeypatch, caplog):
    stock = _open_clip(quick_gelu=True)
    monkeypatch.setattr("mr_core.engine.tower.quick_gelu", nn.functional.gelu)
    with caplog.at_level("WARNING", logger="mr_core.engine.accelerate"):
        assert accelerate(stock) is stock
    assert "the stock model is used" in caplog.text


def test_a_tower_whose_gradient_is_wrong_is_not_used(monkeypatch, caplog):
    stock = _open_clip(quick_gelu=True)
    monkeypatch.setattr("mr_core.engine.tower.quick_gelu", lambda inputs: quick_gelu(inputs).detach())
    with caplog.at_level("WARNING", logger="mr_core.engine.accelerate"):
        assert accelerate(stock) is stock
    assert "the stock model is used" in caplog.text


def test_dense_products_where_the_packed_ones_are_missing_or_wrong(monkeypatch):
    weight, bias, inputs = torch.randn(6, 4), torch.randn(6), torch.randn(2, 3, 4)
    for product in (_missing, lambda inputs, *_: inputs.new_zeros(len(inputs), 48)):
        monkeypatch.setattr(frozen_linear, "_product", product)
        frozen_linear.can_pack.cache_clear()
        try:
            linear = FrozenLinear(weight, bias, dtype=torch.float32, is_packed=True)
            assert not linear.is_packed
            assert torch.equal(linear(inputs), nn.functional.linear(inputs, weight, bias))
        finally:
            frozen_linear.can_pack.cache_clear()


def _missing(*_: object) -> torch.Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def test_a_packed_product_is_differentiable_twice():
    weight, inputs = torch.randn(6, 4), torch.randn(3, 4, requires_grad=True)
    linear = FrozenLinear(weight, None, dtype=torch.float32, is_packed=True)
    (gradient,) = torch.autograd.grad(linear(inputs).pow(3).sum(), inputs, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), inputs)
    plain = inputs.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad((plain @ weight.T).pow(3).sum(), plain, create_graph=True)
    torch.testing.assert_close(second, torch.autograd.grad(gradient.sum(), plain)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [_open_clip, _timm], ids=["open_clip", "timm"])
def test_bfloat16_is_taken_where_the_gradient_holds(build):
    stock = build()
    fast = accelerate(stock, precision="bfloat16")
    assert fast.is_accelerated
    assert fast(_canvases()).dtype == torch.float32
    error, cosine = gradient_agreement(fast, stock, probe_canvases(stock))
    assert 1e-4 < error < 0.05  # that it is bfloat16 shows, too
    assert cosine > 0.999
    assert 1e-4 < output_difference(fast, stock, probe_canvases(stock)) < 0.05
    assert torch.equal(_gradient(fast.double(), torch.float64), _gradient(stock.double(), torch.float64))


def test_bfloat16_is_refused_where_the_gradient_is_lost():
    """A rectified network: in bfloat16 gates flip, and the gradient with them."""
    with pytest.raises(
        SpecError, match=r"relative error 0\.\d+ \(at most 0\.05\), cosine 0\.\d+ \(at least 0\.999\)"
    ) as refusal:
        accelerate(load_backbone(MINI_CLIP), precision="bfloat16")
    assert refusal.value.param == "precision"


def test_bfloat16_is_refused_for_a_transformer_that_loses_it():
    """Queries and keys share a large part: softmax does not see it, but it rounds the differences of scores away."""
    stock = _open_clip()
    with torch.no_grad():
        for block in stock.source.model.visual.transformer.resblocks:
            block.attn.in_proj_bias[: 2 * WIDTH] += 30
    with pytest.raises(SpecError, match="does not keep its gradient in bfloat16"):
        accelerate(stock, precision="bfloat16")


def test_bfloat16_leaves_the_stock_model_alone(tiny_backbone):
    """Without a form of its own a model is cast; this one is smooth and shallow, so its gradient holds."""
    before = state_sha256(tiny_backbone)
    fast = accelerate(tiny_backbone, precision="bfloat16")
    assert state_sha256(tiny_backbone) == before
    assert fast.available_outputs == tiny_backbone.available_outputs
    assert torch.equal(fast.encode_text(["a"]), tiny_backbone.encode_text(["a"]))
    canvases = torch.rand(2, 3, 12, 12)
    assert fast(canvases).dtype == torch.float32
    assert not torch.equal(fast(canvases), tiny_backbone(canvases))
