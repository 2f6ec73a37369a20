"""Reprogrammed models small enough for the general path."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mr_core.backbones.backbone import Backbone
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.label_mappings.linear.mapping import LinearMapping
from mr_core.label_mappings.module import LabelMapping
from mr_core.label_mappings.text.mapping import TextMapping
from mr_core.reprogrammed import ReprogrammedModel


def build_mapping(name: str, backbone: Backbone) -> LabelMapping:
    if name == "frequent":
        mapping = FrequentSpec().build(backbone, ["a", "b", "c"])
        mapping.source_of_target.copy_(torch.tensor([4, 1, 6]))
        return mapping
    if name == "text":  # more classes than the outputs it reads
        width = backbone.width("image_text")
        texts = torch.randn(width + 1, width, generator=torch.Generator().manual_seed(1))
        return TextMapping(nn.functional.normalize(texts, dim=1))
    linear = LinearMapping(width=backbone.width("embedding"), n_targets=3, reads="embedding")
    if name == "trained linear":
        nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(2))
    return linear


@pytest.fixture
def reprogrammed(tiny_backbone: Backbone) -> Callable[..., ReprogrammedModel]:
    """Builds a model of a mapping (`frequent`, `text`, `linear`, `trained linear`), framed or not."""

    def build(mapping: str, *, framed: bool = True, dtype: torch.dtype = torch.float64) -> ReprogrammedModel:
        spec = PaddingSpec(image_size=6) if framed else IdentitySpec()
        transform = spec.build(tiny_backbone.preprocessing)
        for parameter in transform.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
        return ReprogrammedModel(transform, tiny_backbone, build_mapping(mapping, tiny_backbone)).to(dtype)

    return build


@pytest.fixture
def images() -> Tensor:
    """Six images for the frame, in [0, 1]."""
    return torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
