"""Backbones from torchvision."""

from collections.abc import Sequence
from typing import NoReturn

import torchvision
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.backbones.backbone import SourceModel
from mr_core.backbones.description import BackboneDescription, Output, Preprocessing
from mr_core.errors import BackboneError, BackboneUnavailable, SpecError


class LinearHeadSource(SourceModel):
    """A model that ends in a linear layer: the embedding is that layer's input."""

    def __init__(self, trunk: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.embedding_width = head.in_features
        self.n_source_classes = head.out_features

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        embeddings = self.trunk(canvases)
        results: dict[Output, Tensor] = {"embedding": embeddings}
        if "source_logits" in names:
            results["source_logits"] = self.head(embeddings)
        return {name: results[name] for name in names}

    def map_tower(self) -> nn.Module:
        if isinstance(features := getattr(self.trunk, "features", None), nn.Module):
            return features
        if not isinstance(getattr(self.trunk, "avgpool", None), nn.Module):
            raise SpecError(f"{type(self.trunk).__name__} gives no spatial feature map", param="backbone")
        return _BeforePooling(self.trunk)


class _BeforePooling(nn.Module):
    """What a trunk hands to its `avgpool`."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, canvases: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n c h w"]:
        seen: list[Tensor] = []
        handle = self.trunk.get_submodule("avgpool").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.trunk(canvases)
        finally:
            handle.remove()
        return seen[0]


class ConvolutionalHeadSource(SourceModel):
    """A model whose classifier is convolutional (SqueezeNet): the embedding is the pooled map before it."""

    def __init__(self, features: nn.Module, classifier: nn.Module, *, embedding_width: int, n_classes: int) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.embedding_width = embedding_width
        self.n_source_classes = n_classes

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        maps = self.features(canvases)
        results: dict[Output, Tensor] = {}
        if "embedding" in names:
            results["embedding"] = maps.mean(dim=(2, 3))
        if "source_logits" in names:
            results["source_logits"] = self.classifier(maps).flatten(1)
        return results

    def map_tower(self) -> nn.Module:
        return self.features


def build_model(description: BackboneDescription) -> nn.Module:
    """torchvision's model with random weights, under its own parameter names."""
    if description.architecture not in torchvision.models.list_models(torchvision.models):
        raise BackboneError(
            f"torchvision has no classification architecture {description.architecture!r}", param="architecture"
        )
    refused = sorted({"weights", "weights_backbone", "progress", "pretrained"} & description.arguments.keys())
    if refused:
        raise BackboneError(f"arguments {refused} are not accepted", param="arguments")
    try:
        model: nn.Module = torchvision.models.get_model(description.architecture, weights=None, **description.arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise BackboneError(f"torchvision refuses {description.architecture!r}: {error}", param="arguments") from error
    return model


def wrap(model: nn.Module) -> SourceModel:
    """The model behind the common face: its head is taken off, its trunk gives the embedding."""
    classifier = getattr(model, "classifier", None)
    if isinstance(classifier, nn.Sequential) and not any(isinstance(layer, nn.Linear) for layer in classifier):
        convolution = next(layer for layer in classifier if isinstance(layer, nn.Conv2d))
        return ConvolutionalHeadSource(
            model.get_submodule("features"),
            classifier,
            embedding_width=convolution.in_channels,
            n_classes=convolution.out_channels,
        )
    linears = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not linears:
        raise BackboneError(
            f"{type(model).__name__} has no linear head to take the embedding from", param="architecture"
        )
    head = model.get_submodule(linears[-1])
    assert isinstance(head, nn.Linear)
    parent, _, name = linears[-1].rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())
    return LinearHeadSource(model, head)


def stated_preprocessing(description: BackboneDescription) -> Preprocessing:
    """What torchvision's default weights of this architecture state."""
    if description.preprocessing is not None:
        return description.preprocessing
    preset = torchvision.models.get_model_weights(description.architecture).DEFAULT.transforms()
    return Preprocessing(
        size=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def refuse_hub_weights(description: BackboneDescription) -> NoReturn:
    """torchvision publishes pickled weights only, which are never loaded here."""
    raise BackboneUnavailable(
        f"torchvision's own weights ({description.id}) are published as pickle files, which are not "
        f"loaded here: convert them to safetensors and register the file (POST /v1/backbones, library=torchvision, "
        f"architecture={description.architecture})",
        param="backbone",
    )


def source_classes(description: BackboneDescription) -> tuple[str, ...] | None:
    """The class names that torchvision states for its default weights."""
    weights = torchvision.models.get_model_weights(description.architecture)
    names = weights.DEFAULT.meta.get("categories") if len(weights) else None
    return tuple(names) if names else None
