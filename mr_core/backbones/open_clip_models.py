"""Backbones from open_clip: an image tower with a text tower beside it."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.nn import functional

from mr_core.backbones.backbone import SourceModel
from mr_core.backbones.description import BackboneDescription, Output, Preprocessing
from mr_core.backbones.hub import fetch
from mr_core.errors import BackboneError, SpecError


class OpenClipSource(SourceModel):
    """Embedding = the image tower's output before normalisation; image_text = its unit vector times the logit scale."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self._tokenizer = tokenizer
        with torch.no_grad():
            self.image_text_width = int(self.model.encode_text(tokenizer(["a"])).shape[-1])
        self.embedding_width = self.image_text_width

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        embeddings = self.model.encode_image(canvases)
        results: dict[Output, Tensor] = {"embedding": embeddings}
        if "image_text" in names:
            results["image_text"] = functional.normalize(embeddings, dim=-1) * self.model.logit_scale.exp()
        return {name: results[name] for name in names}

    def map_tower(self) -> nn.Module:
        return _OpenClipMaps(self.model.visual)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        device = self.model.logit_scale.device
        return functional.normalize(self.model.encode_text(self._tokenizer(list(texts)).to(device)), dim=-1)


class _OpenClipMaps(nn.Module):
    """The image tower up to its last map: after the final norm, before pooling and projection."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        if not hasattr(visual, "forward_intermediates"):
            raise SpecError(f"{type(visual).__name__} gives no spatial feature map", param="backbone")
        self.visual = visual

    def forward(self, canvases: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n c h w"]:
        last = self.visual.forward_intermediates(
            canvases, indices=1, normalize_intermediates=True, intermediates_only=True
        )
        maps: Tensor = last["image_intermediates"][-1]
        return maps


def build(description: BackboneDescription) -> tuple[OpenClipSource, Preprocessing]:
    """The architecture with random weights, and its preprocessing."""
    if description.arguments:
        raise BackboneError("open_clip takes a model_config, not arguments", param="arguments")
    name = description.architecture
    if description.architecture_config is not None:
        name = _register(description.architecture_config)
    elif name not in open_clip.list_models():
        raise BackboneError(
            f"open_clip has no architecture {name!r}: choose one of its names or send its model_config",
            param="architecture",
        )
    try:
        model = open_clip.create_model(name, pretrained=None, precision="fp32", device="cpu")
        tokenizer = open_clip.get_tokenizer(name)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        raise BackboneError(f"open_clip refuses {description.architecture!r}: {error}", param="model_config") from error
    return OpenClipSource(model, tokenizer), description.preprocessing or _stated_preprocessing(description, model)


def _register(config: dict[str, Any]) -> str:
    """Make a client's model configuration known under a name derived from it; refuse what would reach a hub."""
    vision, text = config.get("vision_cfg"), config.get("text_cfg")
    if not isinstance(vision, dict) or not isinstance(text, dict) or "embed_dim" not in config:
        raise BackboneError("model_config needs embed_dim, vision_cfg and text_cfg", param="model_config")
    if vision.get("timm_model_pretrained"):
        raise BackboneError(
            "vision_cfg.timm_model_pretrained must be false: the weights are uploaded", param="model_config"
        )
    if any(key.startswith("hf_") for key in text):
        raise BackboneError(
            "text_cfg names a hub model; only open_clip's own text towers load here", param="model_config"
        )
    content = json.dumps(config, sort_keys=True)
    name = "mr-" + hashlib.sha256(content.encode()).hexdigest()[:16]
    if name not in open_clip.list_models():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{name}.json")
            path.write_text(content)
            open_clip.add_model_config(path)
    return name


def _stated_preprocessing(description: BackboneDescription, model: Any) -> Preprocessing:
    size = model.visual.image_size
    stated = open_clip.get_pretrained_cfg(description.architecture, description.pretrained or "")
    return Preprocessing(
        size=size[0] if isinstance(size, tuple | list) else size,
        mean=stated.get("mean", OPENAI_DATASET_MEAN),
        std=stated.get("std", OPENAI_DATASET_STD),
        interpolation=stated.get("interpolation", "bicubic"),
    )


def fetch_weights(description: BackboneDescription) -> Path:
    """The safetensors file behind a pretrained tag, from the hub or its local cache."""
    stated = open_clip.get_pretrained_cfg(description.architecture, description.pretrained or "")
    if not stated:
        tags = open_clip.list_pretrained_tags_by_model(description.architecture)
        raise BackboneError(
            f"open_clip knows no weights {description.pretrained!r} for {description.architecture!r}; it knows {tags}",
            param="backbone",
        )
    config = open_clip.get_model_config(description.architecture) or {}
    if stated.get("quick_gelu") and not config.get("quick_gelu"):
        # open_clip itself loads these with a warning and a silent loss of accuracy.
        raise BackboneError(
            f"the weights {description.pretrained!r} were trained with QuickGELU: "
            f"use open_clip:{description.architecture}-quickgelu/{description.pretrained}",
            param="backbone",
        )
    repository = str(stated.get("hf_hub", "")).rstrip("/")
    if not repository:
        raise BackboneError(f"open_clip names no hub repository for {description.id}", param="backbone")
    return fetch(repository, HF_SAFE_WEIGHTS_NAME, backbone_id=description.id, library="open_clip")
