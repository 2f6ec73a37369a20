"""Architectures that ship with the package: name, how it is built, what it says of itself."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mr_core.backbones.backbone import SourceModel
from mr_core.backbones.builtin.cifar_resnet import CifarResNet
from mr_core.backbones.builtin.feature_map_source import FeatureMapSource
from mr_core.backbones.builtin.kws_res8 import KwsRes8
from mr_core.backbones.builtin.mini_clip.model import CONFIG_FILE, WEIGHTS_FILE, MiniClip
from mr_core.backbones.builtin.pixel_source import PixelSource
from mr_core.backbones.description import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ON_FEATURE_MAP,
    BackboneDescription,
    Output,
    Preprocessing,
)
from mr_core.errors import BackboneError, SpecError
from mr_core.sources import SOURCES


class MiniClipSource(SourceModel):
    """mini-clip behind the common face."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MiniClip()
        self.embedding_width = self.model.projection.in_features
        self.n_source_classes = int(self.model.trunk.num_classes)
        self.image_text_width = self.model.projection.out_features

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        embeddings = self.model.embed(canvases)
        results: dict[Output, Tensor] = {"embedding": embeddings}
        if "source_logits" in names:
            results["source_logits"] = self.model.source_logits(embeddings)
        if "image_text" in names:
            results["image_text"] = (
                functional.normalize(self.model.project(embeddings), dim=-1) * self.model.logit_scale
            )
        return {name: results[name] for name in names}

    def map_tower(self) -> nn.Module:
        from mr_core.backbones.timm_models import TimmMaps  # after mini-clip has declared what timm's import needs

        return TimmMaps(self.model.trunk)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return functional.normalize(self.model.encode_text(list(texts)), dim=-1)


@dataclass(frozen=True)
class Architecture:
    """A built-in architecture. `weights_module` is the module whose parameter names a weights file uses."""

    build: Callable[..., SourceModel]
    preprocessing: Callable[[SourceModel], Preprocessing]
    classes: Callable[[], tuple[str, ...] | None] = lambda: None
    weights_module: Callable[[SourceModel], nn.Module] = lambda source: source
    weights: Path | None = None


def _mini_clip_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads(CONFIG_FILE.read_text())
    return config


def _cifar_preprocessing(_: SourceModel) -> Preprocessing:
    return Preprocessing(size=32, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear")


def _stated_by_source(source: SourceModel) -> Preprocessing:
    assert isinstance(source, PixelSource | FeatureMapSource)
    return source.preprocessing


ARCHITECTURES: dict[str, Architecture] = {
    "mini_clip": Architecture(
        build=MiniClipSource,
        preprocessing=lambda _: Preprocessing(**_mini_clip_config()["preprocessing"]),
        classes=lambda: tuple(_mini_clip_config()["classes"]),
        weights_module=lambda source: source.get_submodule("model"),
        weights=WEIGHTS_FILE,
    ),
    "cifar_resnet20": Architecture(
        build=lambda **arguments: CifarResNet(3, **arguments), preprocessing=_cifar_preprocessing
    ),
    "cifar_resnet56": Architecture(
        build=lambda **arguments: CifarResNet(9, **arguments), preprocessing=_cifar_preprocessing
    ),
    "kws_res8": Architecture(build=KwsRes8, preprocessing=_cifar_preprocessing),
    **{
        kind: Architecture(build=partial(PixelSource.of_kind, kind), preprocessing=_stated_by_source)
        for kind in SOURCES
    },
    ON_FEATURE_MAP: Architecture(build=FeatureMapSource.of_arguments, preprocessing=_stated_by_source),
}


def build(architecture: Architecture, arguments: dict[str, Any]) -> SourceModel:
    """The architecture with random weights; BackboneError where it refuses the arguments."""
    try:
        return architecture.build(**arguments)
    except SpecError as error:
        raise BackboneError(
            f"the built-in architecture refuses its arguments: {error.detail}", param="arguments"
        ) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise BackboneError(f"the built-in architecture refuses {arguments}: {error}", param="arguments") from error


def package_weights(architecture: Architecture, description: BackboneDescription) -> Path:
    """The weights that ship with the package; BackboneError where none do."""
    if architecture.weights is None:
        raise BackboneError(f"no weights of {description.architecture} ship with the package", param="backbone")
    return architecture.weights
