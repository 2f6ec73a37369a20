"""A source network on the pixels of the canvas."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor, nn

from mr_core.backbones.backbone import MapsOf, SourceModel
from mr_core.backbones.description import IMAGENET_MEAN, IMAGENET_STD, Output, Preprocessing
from mr_core.sources import SOURCES
from mr_core.sources.base import SourceSpec
from mr_core.sources.network import SourceNetwork

MOST_CLASSES = 100_000


class PixelSource(SourceModel):
    """An `mlp`, `cnn`, `vgg` or `resnet` on normalised canvases of one size."""

    def __init__(self, spec: SourceSpec, *, size: int, n_classes: int) -> None:
        super().__init__()
        self.preprocessing = Preprocessing(size=size, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear")
        shape = (3, size, size)
        require_classes(n_classes)
        spec.check(shape, n_classes)
        self.network: SourceNetwork = spec.build(shape, n_classes)
        self.embedding_width = self.network.embedding_width
        self.n_source_classes = n_classes
        self.only_canvas = size
        self.most_images = spec.pass_size(shape)

    @classmethod
    def of_kind(cls, kind: str, *, size: int = 32, n_classes: int = 10, **hyper_parameters: Any) -> "PixelSource":
        """From the arguments of a description; ValueError or SpecError where they do not fit."""
        return cls(source_spec({"kind": kind, **hyper_parameters}), size=size, n_classes=n_classes)

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        return network_outputs(self.network, canvases, names)

    def map_tower(self) -> nn.Module:
        return MapsOf(self.network)


def source_spec(values: dict[str, Any]) -> SourceSpec:
    """The spec of a source architecture; ValueError naming the argument that does not fit."""
    kind = values.get("kind")
    if kind not in SOURCES:
        raise ValueError(f"the source architecture is {kind!r}, expected one of {sorted(SOURCES)}")
    try:
        return SOURCES[kind].model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def require_classes(n_classes: int) -> None:
    """ValueError unless it is a number of classes that a head can have."""
    if not isinstance(n_classes, int) or not 1 <= n_classes <= MOST_CLASSES:
        raise ValueError(f"n_classes is {n_classes!r}, expected 1 to {MOST_CLASSES}")


def network_outputs(network: SourceNetwork, inputs: Tensor, names: Sequence[Output]) -> dict[Output, Tensor]:
    """Embedding and source logits of a source network."""
    embeddings = network.embed(inputs)
    results: dict[Output, Tensor] = {"embedding": embeddings}
    if "source_logits" in names:
        results["source_logits"] = network.classify(embeddings)
    return {name: results[name] for name in names}
