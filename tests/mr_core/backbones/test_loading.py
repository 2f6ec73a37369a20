import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mr_core.backbones.description import MINI_CLIP, BackboneDescription, Preprocessing
from mr_core.backbones.identifiers import describe
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.weights import file_sha256
from mr_core.errors import BackboneError, BackboneUnavailable

TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def _save(source: torch.nn.Module, path: Path) -> Path:
    safetensors.torch.save_file({name: t.contiguous() for name, t in source.state_dict().items()}, path)
    return path


def _canvases(backbone) -> torch.Tensor:
    size = backbone.canvas_size
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_the_built_in_model_has_labels_and_text():
    backbone = load_backbone(MINI_CLIP)
    assert backbone.output_shapes.labels == len(backbone.source_classes) >= 100
    outputs = backbone.outputs(_canvases(backbone), backbone.available_outputs)
    assert {name: tuple(values.shape) for name, values in outputs.items()} == {
        name: (2, backbone.width(name)) for name in ("embedding", "source_logits", "image_text")
    }
    texts = backbone.encode_text(["a cat", "a dog", "a cat"])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(3))
    assert torch.equal(texts[0], texts[2])


def test_random_controls_are_seeded_and_leave_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = load_backbone(f"random:{MINI_CLIP}"), load_backbone(f"random:{MINI_CLIP}")
    assert torch.equal(torch.rand(3), expected)
    assert first.state_sha256 == second.state_sha256
    assert first.state_sha256 != load_backbone(f"random:{MINI_CLIP}", random_seed=1).state_sha256
    assert first.state_sha256 != load_backbone(MINI_CLIP).state_sha256


def test_is_frozen_whatever_the_caller_asks():
    backbone = load_backbone(f"random:{MINI_CLIP}").train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("std", [(0, 0, 0), (-1, -1, -1), (0.2, 0.2, 0)])
def test_a_deviation_that_is_not_above_0_is_refused(std):
    with pytest.raises(ValueError, match="expected values above 0"):
        Preprocessing(size=32, mean=(0.5,) * 3, std=std)


@pytest.mark.parametrize(
    ("library", "architecture", "extra"),
    [
        ("timm", "test_convnext", {"arguments": {"num_classes": 11}}),
        ("torchvision", "squeezenet1_1", {"arguments": {"num_classes": 11}}),
        ("torchvision", "mobilenet_v3_small", {"arguments": {"num_classes": 11}}),
        ("builtin", "cifar_resnet20", {}),
        ("builtin", "cifar_resnet56", {}),
        ("open_clip", "tiny-clip", {"model_config": TINY_CLIP}),
    ],
)
def test_uploaded_weights_give_the_same_model(tmp_path, library, architecture, extra):
    preprocessing = {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    description = BackboneDescription.model_validate(
        {"id": "bb_1", "library": library, "architecture": architecture, "preprocessing": preprocessing, **extra}
    )
    random = load_backbone(description.model_copy(update={"random_seed": 3}))
    stock = random.source
    weights = tmp_path / "weights.safetensors"
    if library == "torchvision":
        from mr_core.backbones import torchvision_models

        torch.manual_seed(3)
        _save(torchvision_models.build_model(description), weights)
    else:
        _save(getattr(stock, "model", stock), weights)
    loaded = load_backbone(description, weights=weights)
    assert loaded.description.sha256 == file_sha256(weights)
    for name in loaded.available_outputs:
        torch.testing.assert_close(loaded(_canvases(loaded), name), random(_canvases(random), name))
    assert loaded.preprocessing == Preprocessing.model_validate(preprocessing)


def test_speech_features_go_through_the_keyword_model():
    backbone = load_backbone(BackboneDescription(id="bb_1", library="builtin", architecture="kws_res8", random_seed=0))
    outputs = backbone.source.outputs(torch.randn(2, 1, 101, 40), ("embedding", "source_logits"))
    assert outputs["embedding"].shape == (2, 45)
    assert outputs["source_logits"].shape == (2, 12)


def test_weights_that_do_not_fit_are_named(tmp_path):
    twenty = load_backbone(BackboneDescription(id="r", library="builtin", architecture="cifar_resnet20", random_seed=0))
    weights = _save(twenty.source, tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match=r"do not fit .*missing: .*layer1\.3"):
        load_backbone(BackboneDescription(id="b", library="builtin", architecture="cifar_resnet56"), weights=weights)
    wide = BackboneDescription(id="b", library="builtin", architecture="cifar_resnet20", arguments={"n_classes": 7})
    with pytest.raises(BackboneError, match=r"of another shape: linear\.\w+ \[10.* instead of \[7"):
        load_backbone(wide, weights=weights)


def test_refuses_what_is_not_safetensors_or_not_finite(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\x80\x04 pickle")
    description = BackboneDescription(id="b", library="builtin", architecture="cifar_resnet20")
    with pytest.raises(BackboneError, match="not a safetensors file"):
        load_backbone(description, weights=path)
    source = load_backbone(description.model_copy(update={"random_seed": 0})).source
    source.linear.bias[3] = float("nan")
    with pytest.raises(BackboneError, match=r"not finite, first in 'linear\.bias'"):
        load_backbone(description, weights=_save(source, path))


def test_refuses_another_file_than_the_registered_one(tmp_path):
    description = BackboneDescription(id="bb_1", library="builtin", architecture="cifar_resnet20", sha256="0" * 64)
    weights = _save(load_backbone(description.model_copy(update={"random_seed": 0})).source, tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match=r"has sha256 [0-9a-f]{64}, but bb_1 has 0{64}"):
        load_backbone(description, weights=weights)
    with pytest.raises(BackboneError, match=r"registered from a file with sha256 0{64}"):
        load_backbone(description)


@pytest.mark.parametrize(
    ("backbone_id", "message"),
    [
        ("resnet", "unknown backbone 'resnet': expected builtin/mini-clip, timm:<name>"),
        ("bb_1", "unknown backbone"),
        ("timm:no_such_net", "timm has no architecture 'no_such_net'"),
        ("timm:hf-hub:someone/something", "timm has no architecture"),
        ("open_clip:ViT-B-32/no_such_tag", "knows no weights 'no_such_tag'"),
        ("open_clip:ViT-B-32/openai", "use open_clip:ViT-B-32-quickgelu/openai"),
        ("torchvision:resnet18/DEFAULT", "pickle"),
    ],
)
def test_unknown_ids_say_what_is_accepted(backbone_id: str, message: str):
    with pytest.raises(BackboneError, match=message):
        load_backbone(backbone_id)


@pytest.mark.parametrize("argument", ["pretrained", "checkpoint_path", "pretrained_cfg", "features_only"])
def test_refuses_arguments_that_would_load_files(argument: str):
    description = BackboneDescription(
        id="b", library="timm", architecture="resnet10t", arguments={argument: "x"}, random_seed=0
    )
    with pytest.raises(BackboneError, match="not accepted"):
        load_backbone(description)


def test_refuses_a_model_config_that_names_a_hub():
    for part, key, value in (("vision_cfg", "timm_model_pretrained", True), ("text_cfg", "hf_model_name", "x")):
        config = json.loads(json.dumps(TINY_CLIP))
        config[part][key] = value
        description = BackboneDescription.model_validate(
            {"id": "b", "library": "open_clip", "architecture": "x", "model_config": config, "random_seed": 0}
        )
        with pytest.raises(BackboneError, match=r"model_config|hub|timm_model_pretrained"):
            load_backbone(description)


def test_hub_weights_come_from_the_local_cache(tmp_path, monkeypatch):
    """A cache folder laid out as the hub client lays it out."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    source = load_backbone("random:timm:test_convnext", random_seed=5).source
    repository = tmp_path / "models--timm--test_convnext.r160_in1k"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    _save(source.model, snapshot / "model.safetensors")
    loaded = load_backbone("timm:test_convnext")
    assert torch.equal(
        loaded(_canvases(loaded), "source_logits"),
        load_backbone("random:timm:test_convnext", random_seed=5)(_canvases(loaded), "source_logits"),
    )
    assert len(loaded.source_classes) == 1000
    shutil.rmtree(repository)


def test_without_a_network_it_says_how_to_provide_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("mr_core.backbones.hub.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        BackboneUnavailable, match=r"model\.safetensors of timm/resnet10t.*POST /v1/backbones"
    ) as caught:
        load_backbone("timm:resnet10t")
    assert caught.value.code == "backbone_unavailable"
    with pytest.raises(BackboneUnavailable, match=r"open_clip_model\.safetensors"):
        load_backbone("open_clip:ViT-B-32-quickgelu/openai")


def test_describing_needs_no_library():
    random = describe("random:open_clip:ViT-B-32/laion2b_s34b_b79k", random_seed=4)
    assert (random.library, random.architecture, random.random_seed) == ("open_clip", "ViT-B-32", 4)
