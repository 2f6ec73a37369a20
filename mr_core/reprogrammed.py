"""The reprogrammed model: h(f_S(a(x; theta)); omega), with f_S frozen."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import Preprocessing
from mr_core.input_transforms.module import InputTransform
from mr_core.label_mappings.module import LabelMapping
from mr_core.sources.network import SourceNetwork
from mr_core.views import require_equal_views


class ReprogrammedModel(nn.Module):
    """Input transform, frozen backbone, label mapping (Chen, 2022, arXiv:2202.10629, section 3)."""

    def __init__(self, input_transform: InputTransform, backbone: Backbone, label_mapping: LabelMapping) -> None:
        super().__init__()
        require_equal_views(input_transform.views, label_mapping.views)
        self.input_transform = input_transform
        self.backbone = backbone
        self.label_mapping = label_mapping

    @property
    def batch_limit(self) -> int:
        """Samples a pass, for what memory and caches bear."""
        return max(1, self.backbone.chunk_size // self.input_transform.views)

    def backbone_outputs(self, images: Float[Tensor, "n 3 k k"]) -> Float[Tensor, "n d"]:
        """What the label mapping reads, of images in [0, 1]."""
        return self.outputs_of(self.input_transform(images))

    def outputs_of(self, canvases: Float[Tensor, "m 3 s s"]) -> Float[Tensor, "n d"]:
        """What the label mapping reads, of the transform's canvases."""
        return self.input_transform.side_by_side(self.backbone(canvases, self.label_mapping.reads))

    def forward(self, images: Float[Tensor, "n 3 k k"]) -> Float[Tensor, "n c"]:
        """Target logits of images in [0, 1] at the transform's image size."""
        logits: Tensor = self.label_mapping(self.backbone_outputs(images))
        return logits

    def adapter_parameters(self) -> list[nn.Parameter]:
        """What trains: the transform's and the mapping's parameters, none of the backbone's."""
        return [*self.input_transform.parameters(), *self.label_mapping.parameters()]


class FeatureHead(nn.Module):
    """The label mapping of a model whose input transform has nothing to train, on outputs computed beforehand.

    It trains the same mapping to the same weights without a pass through the backbone. Its inputs are what the
    mapping reads, `(n, d)`.
    """

    def __init__(self, model: ReprogrammedModel, *, batch: int = 4096) -> None:
        super().__init__()
        if any(True for _ in model.input_transform.parameters()):
            raise ValueError("the input transform has parameters, so outputs change as it trains")
        self.label_mapping = model.label_mapping
        self.batch_limit = batch

    def backbone_outputs(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The features themselves."""
        return features

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Target logits."""
        logits: Tensor = self.label_mapping(features)
        return logits

    def adapter_parameters(self) -> list[nn.Parameter]:
        """What trains: the mapping's parameters."""
        return list(self.label_mapping.parameters())


class SourceInTraining(nn.Module):
    """A source network before it is a backbone: it trains itself, and nothing is mapped.

    Its inputs are images in [0, 1] that `mean` and `std` normalise, or feature maps, which are taken as they are.
    """

    label_mapping: LabelMapping | None = None
    mean: Float[Tensor, "1 3 1 1"] | None
    std: Float[Tensor, "1 3 1 1"] | None

    def __init__(self, network: SourceNetwork, *, batch: int, preprocessing: Preprocessing | None = None) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        self.batch_limit = batch
        for name in ("mean", "std"):
            values = None if preprocessing is None else torch.tensor(getattr(preprocessing, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def backbone_outputs(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The embedding."""
        return self.network.embed(self.normalised(inputs))

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of the classes."""
        logits: Tensor = self.network(self.normalised(inputs))
        return logits

    def adapter_parameters(self) -> list[nn.Parameter]:
        """What trains: all of the network."""
        return list(self.network.parameters())

    def normalised(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """What the network takes."""
        return inputs if self.mean is None or self.std is None else (inputs - self.mean) / self.std


Trainable = ReprogrammedModel | FeatureHead | SourceInTraining
"""What a trainer trains: each takes a batch of its data and gives logits."""
