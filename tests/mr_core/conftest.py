"""A frozen source model small enough to work everything out by hand."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mr_core.backbones.backbone import Backbone, SourceModel
from mr_core.backbones.description import BackboneDescription, Output, Preprocessing
from mr_core.trainers.trainer import LabelledImages

TINY_CANVAS = 12

torch.set_num_threads(1)  # tiny tensors: a second thread costs more than it brings, far more on a busy machine


class TinySource(SourceModel):
    """Two convolutions with BatchNorm between; six features, seven source classes, a text space of four dimensions."""

    embedding_width = 6
    n_source_classes = 7
    image_text_width = 4

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.second = nn.Conv2d(5, 6, 3, stride=2)
        self.head = nn.Linear(6, 7)
        self.projection = nn.Linear(6, 4)

    def outputs(self, canvases: Tensor, names: Sequence[Output]) -> dict[Output, Tensor]:
        embedding = torch.tanh(self.second(torch.relu(self.norm(self.first(canvases))))).mean((2, 3))
        values: dict[Output, Tensor] = {
            "embedding": embedding,
            "source_logits": self.head(embedding),
            "image_text": 10 * functional.normalize(self.projection(embedding), dim=1),
        }
        return {name: values[name] for name in names}

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        codes = torch.tensor([[float(sum(map(ord, text)) % p) for p in (3, 5, 7, 11)] for text in texts])
        return functional.normalize(codes + 0.1, dim=1)


def make_tiny_backbone(seed: int = 0) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        source = TinySource()
        source.norm.running_mean.normal_(std=0.2)
        source.norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(source.norm.weight)
        nn.init.normal_(source.norm.bias)
    backbone = Backbone(
        source,
        description=BackboneDescription(id="tiny", library="builtin", architecture="tiny"),
        preprocessing=Preprocessing(size=TINY_CANVAS, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
        source_classes=[f"source {i}" for i in range(7)],
    )
    backbone.chunk_size = 4
    return backbone


@pytest.fixture
def tiny_backbone() -> Backbone:
    return make_tiny_backbone()


@pytest.fixture
def tiny_images() -> Callable[..., LabelledImages]:
    """Images of three classes that differ in brightness by channel: learnable, not trivial."""

    def make(n: int = 30, size: int = 6, seed: int = 0) -> LabelledImages:
        generator = np.random.default_rng(seed)
        labels = np.arange(n, dtype=np.int64) % 3
        images = generator.integers(0, 160, size=(n, 3, size, size), dtype=np.uint8)
        images[np.arange(n), labels] += 80
        return LabelledImages(images=images, labels=labels)

    return make
