"""A source network on the frozen feature map of another backbone; one file holds the weights of both."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from mr_core.backbones.backbone import Backbone, MapsOf, SourceModel
from mr_core.backbones.builtin.pixel_source import network_outputs, require_classes, source_spec
from mr_core.backbones.description import ON_FEATURE_MAP, BackboneDescription, Output
from mr_core.errors import SpecError
from mr_core.sources.base import Shape, SourceSpec
from mr_core.sources.network import SourceNetwork


class FeatureMapSource(SourceModel):
    """`base` makes a map of the canvas (see `SourceModel.map_tower`), `network` classifies it."""

    def __init__(self, base: Backbone, spec: SourceSpec, *, n_classes: int) -> None:
        super().__init__()
        self.preprocessing = base.preprocessing
        self.base = base.source.map_tower()
        shape = map_shape(self.base, base.canvas_size)
        require_classes(n_classes)
        spec.check(shape, n_classes)
        self.network: SourceNetwork = spec.build(shape, n_classes)
        self.embedding_width = self.network.embedding_width
        self.n_source_classes = n_classes
        self.only_canvas = base.canvas_size
        self.most_images = spec.pass_size(shape)

    @classmethod
    def of_arguments(cls, *, base: dict[str, Any], source: dict[str, Any], n_classes: int = 10) -> "FeatureMapSource":
        """From the arguments of a description; the base has random weights, drawn from torch's global generator."""
        return cls(_random_base(base), source_spec(source), n_classes=n_classes)

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        return network_outputs(self.network, self.base(canvases), names)

    def maps(self, canvases: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n c h w"]:
        """The network's last map."""
        return self.network.maps(self.base(canvases))

    def map_tower(self) -> MapsOf:
        return MapsOf(self)


def base_arguments(backbone: Backbone) -> dict[str, Any]:
    """What `of_arguments` builds this backbone's architecture from again; SpecError where it is itself on a map."""
    description = backbone.description
    if description.architecture == ON_FEATURE_MAP:
        raise SpecError(
            f"{description.id} is itself a source on another backbone's feature map: name that backbone",
            param="backbone",
        )
    stated = {"library", "architecture", "arguments", "architecture_config"}
    fields = description.model_dump(mode="json", by_alias=True, include=stated)
    return fields | {"preprocessing": backbone.preprocessing.model_dump(mode="json")}


@torch.no_grad()
def map_shape(tower: torch.nn.Module, canvas_size: int) -> Shape:
    """Channels, height and width of the map of one canvas; SpecError where it is none."""
    maps: Tensor = tower(torch.zeros(1, 3, canvas_size, canvas_size))
    if maps.ndim != 4:
        raise SpecError(f"this backbone's features have the shape {list(maps.shape[1:])}: no map", param="backbone")
    channels, height, width = maps.shape[1:]
    return channels, height, width


def _random_base(values: dict[str, Any]) -> Backbone:
    from mr_core.backbones.loading import load_backbone  # which loads this module's architectures

    try:
        description = BackboneDescription.model_validate({"id": "base", **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"base.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if description.architecture == ON_FEATURE_MAP:
        raise ValueError("base is itself a source on a feature map")
    seed = int(torch.randint(2**31, ()))
    backbone = load_backbone(description.model_copy(update={"random_seed": seed, "sha256": None}))
    if hasattr(backbone.source, "input_shape"):
        raise ValueError(f"base takes {backbone.source.input_shape} inputs, not images")
    return backbone
