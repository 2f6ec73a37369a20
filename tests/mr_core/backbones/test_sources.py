"""Source architectures as backbones: on pixels, and on the frozen map of another."""

import pytest
import safetensors.torch
import torch

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.builtin.feature_map_source import base_arguments
from mr_core.backbones.description import BackboneDescription
from mr_core.backbones.loading import load_backbone
from mr_core.errors import BackboneError, SpecError
from tests.mr_core.backbones.test_loading import TINY_CLIP

TINY_VIT = "random:timm:test_vit"


def random_of(architecture: str, arguments: dict, **fields) -> Backbone:
    return load_backbone(described(architecture, arguments, random_seed=fields.pop("seed", 0), **fields))


def described(architecture: str, arguments: dict, **fields) -> BackboneDescription:
    return BackboneDescription(id="x", library="builtin", architecture=architecture, arguments=arguments, **fields)


def on_map(base: str, source: dict | None = None) -> dict:
    return {
        "base": base_arguments(load_backbone(base)),
        "source": source or {"kind": "cnn", "depth": 1, "width": 4},
        "n_classes": 3,
    }


@pytest.mark.parametrize("kind", ["mlp", "cnn", "vgg", "resnet"])
def test_gives_embedding_and_labels(kind):
    backbone = random_of(kind, {"size": 16, "n_classes": 4, "depth": 2, "width": 8})
    canvases = torch.rand(3, 3, 16, 16)
    assert backbone(canvases).shape == (3, backbone.width("embedding"))
    assert backbone(canvases, "source_logits").shape == (3, 4)
    assert backbone.canvas_size == 16
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_the_same_seed_draws_the_same_weights():
    arguments = {"size": 8, "n_classes": 2, "width": 4}
    first, again, other = (random_of("cnn", arguments, seed=seed).state_sha256 for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("architecture", "arguments", "said"),
    [
        ("cnn", {"depth": 0}, "depth: Input should be greater than or equal to 1"),
        ("cnn", {"depth": 10}, "depth: Input should be less than or equal to 6"),
        ("mlp", {"depth": 10}, "less than or equal to 9"),
        ("mlp", {"width": 0}, "width: Input should be greater"),
        ("mlp", {"size": 2048, "width": 16_384}, "parameters, expected at most"),
        ("vgg", {"size": 8, "depth": 6, "group_size": 1}, "too small for that"),
        ("resnet", {"size": 3}, "size"),
        ("cnn", {"size": "large"}, "size"),
        ("cnn", {"n_classes": 0}, "n_classes is 0"),
        ("cnn", {"n_classes": 10**9}, "n_classes is 1000000000"),
        ("cnn", {"colour": 1}, "colour"),
        ("cnn", {"kind": "mlp"}, "kind"),
        ("on_feature_map", {}, "missing"),
        ("on_feature_map", {"base": 1, "source": {}}, "refuses"),
        ("on_feature_map", {"base": {"library": "builtin", "architecture": "nothing"}, "source": {}}, "nothing"),
        (
            "on_feature_map",
            {"base": {"library": "builtin", "architecture": "on_feature_map"}, "source": {"kind": "cnn"}},
            "itself a source on a feature map",
        ),
        (
            "on_feature_map",
            {"base": {"library": "builtin", "architecture": "kws_res8"}, "source": {"kind": "cnn"}},
            "not images",
        ),
        (
            "on_feature_map",
            {"base": {"library": "builtin", "architecture": "mlp"}, "source": {"kind": "cnn"}},
            "no spatial feature map",
        ),
        (
            "on_feature_map",
            {"base": {"library": "builtin", "architecture": "cifar_resnet20"}, "source": {"kind": "big"}},
            "'big', expected one of",
        ),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(architecture, arguments, said):
    with pytest.raises(BackboneError, match=said):
        random_of(architecture, arguments)


def test_a_canvas_of_another_size_is_refused():
    preprocessing = {"size": 24, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(BackboneError, match="canvases of 24 pixels, and this mlp takes 16"):
        random_of("mlp", {"size": 16}, preprocessing=preprocessing)


def test_a_vision_transformers_tokens_are_folded_row_by_row():
    source = load_backbone(TINY_VIT).source
    canvases = torch.rand(2, 3, 160, 160)
    maps = source.map_tower()(canvases)
    tokens = source.model.forward_features(canvases)  # the class token first
    assert maps.shape == (2, 64, 10, 10)
    for row, column in ((0, 0), (0, 9), (3, 7)):
        torch.testing.assert_close(maps[:, :, row, column], tokens[:, 1 + 10 * row + column])


def test_an_open_clip_towers_tokens_are_those_before_pooling():
    description = BackboneDescription(
        id="x", library="open_clip", architecture="tiny", architecture_config=TINY_CLIP, random_seed=0
    )
    source = load_backbone(description).source
    visual, canvases = source.model.visual, torch.rand(2, 3, 32, 32)
    tower = source.map_tower()
    assert tower(canvases).shape == (2, 32, 2, 2)
    assert not any(name.startswith("transformer") for name in tower.state_dict()), "the text tower is not kept"
    visual.output_tokens = True
    _, tokens = visual(canvases)
    torch.testing.assert_close(tower(canvases).flatten(2).transpose(1, 2), tokens)


@pytest.mark.parametrize(
    "name", ["random:timm:test_resnet", "random:torchvision:resnet18/x", "random:builtin/mini-clip"]
)
def test_a_convnets_map_is_what_it_pools(name):
    backbone = load_backbone(name)
    canvases = torch.rand(1, 3, backbone.canvas_size, backbone.canvas_size)
    maps = backbone.source.map_tower()(canvases)
    pooled = backbone.source.outputs(canvases, ("embedding",))["embedding"]
    torch.testing.assert_close(maps.mean((2, 3)), pooled)


def test_what_has_no_map_says_so(tiny_backbone):
    with pytest.raises(SpecError, match="no spatial feature map") as refused:
        tiny_backbone.source.map_tower()
    assert refused.value.param == "backbone"
    vit = load_backbone("random:torchvision:vit_b_32/x").source
    with pytest.raises(SpecError, match="no spatial feature map"):
        vit.map_tower()


def test_one_file_holds_base_and_network(tmp_path):
    arguments = on_map(TINY_VIT)
    trained = random_of("on_feature_map", arguments, seed=5)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({name: t.contiguous() for name, t in trained.source.state_dict().items()}, path)
    loaded = load_backbone(described("on_feature_map", arguments), weights=path)
    assert loaded.state_sha256 == trained.state_sha256
    assert loaded.preprocessing == trained.preprocessing
    canvases = torch.rand(2, 3, 160, 160)
    torch.testing.assert_close(loaded(canvases, "source_logits"), trained(canvases, "source_logits"))


def test_a_source_on_a_map_is_no_base_itself():
    with pytest.raises(SpecError, match="name that backbone"):
        base_arguments(random_of("on_feature_map", on_map(TINY_VIT)))
