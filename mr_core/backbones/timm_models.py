"""Backbones from timm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from jaxtyping import Float
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn

from mr_core.backbones.backbone import SourceModel
from mr_core.backbones.description import BackboneDescription, Interpolation, Output, Preprocessing
from mr_core.backbones.hub import fetch
from mr_core.errors import BackboneError, SpecError

# Arguments of timm.create_model that would load files, reach a hub, or change what the model returns.
_REFUSED = {
    "pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "cache_dir",
    "scriptable", "exportable", "no_jit", "features_only", "model_name",
}  # fmt: skip


class TimmSource(SourceModel):
    """Embedding = the pooled features before the classifier; source logits = the classifier on them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.embedding_width = int(getattr(self.model, "head_hidden_size", None) or self.model.num_features)
        self.n_source_classes = int(self.model.num_classes) or None

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        embeddings = self.model.forward_head(self.model.forward_features(canvases), pre_logits=True)
        results: dict[Output, Tensor] = {"embedding": embeddings}
        if "source_logits" in names:
            results["source_logits"] = self.model.get_classifier()(embeddings)
        return {name: results[name] for name in names}

    def map_tower(self) -> nn.Module:
        return TimmMaps(self.model)


class TimmMaps(nn.Module):
    """A timm model up to `forward_features`, tokens folded to their grid."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, canvases: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n c h w"]:
        features: Tensor = self.model.forward_features(canvases)
        n_features = int(self.model.num_features)
        if features.ndim == 4 and features.shape[1] == n_features:
            return features
        if features.ndim == 4 and features.shape[3] == n_features:
            return features.permute(0, 3, 1, 2).contiguous()
        grid = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
        if features.ndim == 3 and grid is not None:
            tokens = features[:, int(getattr(self.model, "num_prefix_tokens", 0)) :]
            if tokens.shape[1] == grid[0] * grid[1]:
                return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)
        raise SpecError(f"{type(self.model).__name__} gives no spatial feature map", param="backbone")


def build(description: BackboneDescription) -> tuple[TimmSource, Preprocessing]:
    """The architecture with the weights that torch's random generator gives, and its preprocessing."""
    _check_name(description)
    refused = sorted(_REFUSED & description.arguments.keys())
    if refused:
        raise BackboneError(f"arguments {refused} are not accepted", param="arguments")
    try:
        model = timm.create_model(description.architecture, pretrained=False, **description.arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        raise BackboneError(f"timm refuses {description.architecture!r}: {error}", param="arguments") from error
    return TimmSource(model), description.preprocessing or _stated_preprocessing(model)


def _stated_preprocessing(model: nn.Module) -> Preprocessing:
    config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    interpolation: Interpolation = config["interpolation"] if config["interpolation"] != "random" else "bicubic"
    return Preprocessing(
        size=config["input_size"][-1],
        mean=config["mean"],
        std=config["std"],
        interpolation=interpolation,
    )


def fetch_weights(description: BackboneDescription) -> Path:
    """The safetensors file of timm's own weights, from the hub or its local cache."""
    _check_name(description)
    config = timm.get_pretrained_cfg(description.architecture, allow_unregistered=False)
    if config is None or not config.hf_hub_id:
        raise BackboneError(f"timm names no hub weights for {description.architecture!r}", param="backbone")
    return fetch(config.hf_hub_id, "model.safetensors", backbone_id=description.id, library="timm")


def source_classes(description: BackboneDescription) -> tuple[str, ...] | None:
    """The names of ImageNet-1k's classes, for weights trained on it."""
    config = timm.get_pretrained_cfg(description.architecture, allow_unregistered=False)
    if config is None or config.num_classes != 1000:
        return None
    info = ImageNetInfo("imagenet-1k")
    return tuple(info.index_to_description(i).split(",")[0] for i in range(1000))


def _check_name(description: BackboneDescription) -> None:
    if not timm.is_model(description.architecture):
        raise BackboneError(f"timm has no architecture {description.architecture!r}", param="architecture")
