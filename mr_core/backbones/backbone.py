"""The frozen source model as every other part sees it: canvases in, one of three outputs out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.backbones.description import BackboneDescription, BackboneOutputs, Output, Preprocessing
from mr_core.errors import SpecError


class SourceModel(nn.Module, ABC):
    """One library's model behind a common face; it takes normalised canvases.

    `embedding` is what the source head reads (width `embedding_width`; None of a model that only answers);
    `source_logits` scores the source classes; `image_text` is the unit image embedding times the logit scale, in the
    space of `encode_text`.
    `only_canvas` is set where no other canvas fits, `most_images` where a pass bears fewer than usual.
    """

    embedding_width: int | None
    n_source_classes: int | None = None
    image_text_width: int | None = None
    only_canvas: int | None = None
    most_images: int | None = None

    @abstractmethod
    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        """The named outputs, each `(n, d)`, from one pass."""

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit text embeddings; only where `image_text_width` is set."""
        raise SpecError(f"this backbone has no text tower ({type(self).__name__})")

    def map_tower(self) -> nn.Module:
        """The part of the model, sharing its weights, that gives the last spatial map `(n, c, h, w)` of canvases.

        Of a vision transformer: its normalised patch tokens, without the class token, folded to their grid.
        """
        raise SpecError(f"this backbone has no spatial feature map ({type(self).__name__})", param="backbone")


class MapsOf(nn.Module):
    """A whole model called for its `maps`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, canvases: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n c h w"]:
        maps: Tensor = self.model.maps(canvases)  # type: ignore[operator]
        return maps


class Backbone(nn.Module):
    """A frozen source model with its preprocessing. Parameters never require gradients; always in eval mode."""

    mean: Float[Tensor, "1 3 1 1"]
    std: Float[Tensor, "1 3 1 1"]

    def __init__(
        self,
        source: SourceModel,
        *,
        description: BackboneDescription,
        preprocessing: Preprocessing,
        source_classes: Sequence[str] | None,
    ) -> None:
        super().__init__()
        self.source = source.requires_grad_(False).eval()
        self.description = description
        self.preprocessing = preprocessing
        self.source_classes = tuple(source_classes) if source_classes is not None else None
        self.chunk_size = min(64, source.most_images or 64)  # a pass; `accelerate` sets what suits the caches
        self.state_sha256 = ""  # digest of the stock tensors, set where they are loaded
        self.is_accelerated = False
        self.calibrated_statistics: dict[str, Tensor] = {}  # of a random backbone's BatchNorm layers
        self._memory_format = torch.contiguous_format
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    @property
    def canvas_size(self) -> int:
        """Side of the canvas, in pixels."""
        return self.preprocessing.size

    @property
    def output_shapes(self) -> BackboneOutputs:
        """What this backbone gives, as the API tells it."""
        return BackboneOutputs(
            labels=self.source.n_source_classes,
            embedding=self.source.embedding_width,
            text=self.source.image_text_width is not None,
        )

    def width(self, output: Output) -> int:
        """Columns of an output; SpecError naming the lack where this backbone has none."""
        widths: dict[Output, int | None] = {
            "embedding": self.source.embedding_width,
            "source_logits": self.source.n_source_classes,
            "image_text": self.source.image_text_width,
        }
        width = widths[output]
        if width is None:
            lack = {"source_logits": "source labels", "embedding": "embedding", "image_text": "text tower"}[output]
            raise SpecError(f"the backbone {self.description.id} has no {lack}", param="label_mapping.kind")
        return width

    def forward(self, canvases: Float[Tensor, "n 3 s s"], output: Output = "embedding") -> Float[Tensor, "n d"]:
        """One output of canvases in pixel space, values in [0, 1] (a prompt may leave that range)."""
        return self.outputs(canvases, (output,))[output]

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        """Several outputs from one pass; each `(n, d)`."""
        normalised = (canvases - self.mean) / self.std
        return self.source.outputs(normalised.contiguous(memory_format=self._memory_format), names)

    def around(self, source: SourceModel, *, source_classes: Sequence[str] | None) -> "Backbone":
        """Another source model in this one's place, such as itself with a head more: the same form, the same digest."""
        other = Backbone(
            source, description=self.description, preprocessing=self.preprocessing, source_classes=source_classes
        ).to(self.mean.device)
        other.chunk_size, other.state_sha256 = self.chunk_size, self.state_sha256
        other.is_accelerated, other._memory_format = self.is_accelerated, self._memory_format
        other.calibrated_statistics = self.calibrated_statistics
        return other

    def use_channels_last(self) -> None:
        """Lay weights and canvases out with the channels innermost, as convolutions on CPU and GPU prefer."""
        self._memory_format = torch.channels_last
        self.source.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def available_outputs(self) -> tuple[Output, ...]:
        """The outputs this backbone has."""
        shapes = self.output_shapes
        names: list[Output] = []
        if shapes.embedding is not None:
            names.append("embedding")
        if shapes.labels is not None:
            names.append("source_logits")
        if shapes.text:
            names.append("image_text")
        return tuple(names)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit text embeddings `(n, d)`; SpecError without a text tower."""
        self.width("image_text")
        return self.source.encode_text(texts)

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode whatever the caller asks: frozen includes BatchNorm and dropout."""
        return super().train(False)
