"""A reprogrammed model small enough for double loops."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from mr_core.backbones.backbone import Backbone, Output, SourceModel
from mr_core.backbones.description import BackboneDescription, Preprocessing
from mr_core.input_transforms.identity.transform import IdentityTransform
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.label_mappings.frequent.mapping import FrequentMapping
from mr_core.label_mappings.linear.mapping import LinearMapping
from mr_core.label_mappings.module import LabelMapping
from mr_core.label_mappings.text.mapping import TextMapping
from mr_core.reprogrammed import ReprogrammedModel

CANVAS = 8


class TinySource(SourceModel):
    """Two convolutions with BatchNorm, five features, nine source classes, a text space of three dimensions."""

    embedding_width = 5
    n_source_classes = 9
    image_text_width = 3

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.Softplus()
        )
        self.head = nn.Linear(5, 9)
        self.projection = nn.Linear(5, 3)

    def outputs(self, canvases: Tensor, names: Sequence[Output]) -> dict[Output, Tensor]:
        embedding = self.features(canvases).mean((2, 3))
        values: dict[Output, Tensor] = {
            "embedding": embedding,
            "source_logits": self.head(embedding),
            "image_text": 10 * nn.functional.normalize(self.projection(embedding), dim=1),
        }
        return {name: values[name] for name in names}

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        codes = torch.tensor([[float(len(text)), float(ord(text[0])), float(ord(text[-1]))] for text in texts])
        return nn.functional.normalize(codes - codes.mean() + 0.1, dim=1)


def tiny_backbone() -> Backbone:
    torch.manual_seed(0)
    source = TinySource()
    nn.init.normal_(source.features[1].running_mean, std=0.1)
    return Backbone(
        source,
        description=BackboneDescription(id="tiny", library="builtin", architecture="tiny"),
        preprocessing=Preprocessing(size=CANVAS, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
        source_classes=[f"source {i}" for i in range(9)],
    )


def tiny_mapping(name: str) -> LabelMapping:
    if name == "frequent":
        mapping = FrequentMapping(n_sources=9, n_targets=3, ties="probability")
        mapping.source_of_target.copy_(torch.tensor([4, 1, 7]))
        return mapping
    if name == "text":  # more classes than the three outputs it reads
        return TextMapping(
            nn.functional.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), dim=1)
        )
    linear = LinearMapping(width=5, n_targets=3, reads="embedding")
    if name == "trained linear":
        nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(2))
    return linear


@pytest.fixture
def reprogrammed() -> Callable[..., ReprogrammedModel]:
    """Builds a model of a mapping (`frequent`, `text`, `linear`, `trained linear`), framed or not."""

    def build(mapping: str, *, framed: bool = True, dtype: torch.dtype = torch.float64) -> ReprogrammedModel:
        transform = (
            PaddingSpec(image_size=6).build(CANVAS)
            if framed
            else IdentityTransform(image_size=CANVAS, canvas_size=CANVAS)
        )
        if framed:
            nn.init.normal_(transform.delta, generator=torch.Generator().manual_seed(3))
        return ReprogrammedModel(transform, tiny_backbone(), tiny_mapping(mapping)).to(dtype)

    return build


@pytest.fixture
def images() -> Tensor:
    """Six images for the frame, in [0, 1]."""
    return torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
