"""A model without a form of its own in bfloat16, cast to it."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mr_core.backbones.backbone import SourceModel
from mr_core.backbones.description import Output


class Bfloat16Source(SourceModel):
    """Weights, activations and gradients in bfloat16 for float32 canvases on CPU; for others the model as it was."""

    def __init__(self, plain: SourceModel) -> None:
        super().__init__()
        self.plain = plain
        self.embedding_width = plain.embedding_width
        self.n_source_classes = plain.n_source_classes
        self.image_text_width = plain.image_text_width
        self._cast = _Unregistered(copy.deepcopy(plain).to(torch.bfloat16))

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        if canvases.dtype != torch.float32 or canvases.device.type != "cpu":
            return self.plain.outputs(canvases, names)
        values = self._cast.module.outputs(canvases.bfloat16(), names)
        return {name: value.float() for name, value in values.items()}

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return self.plain.encode_text(texts)


class _Unregistered:
    """Keeps a module out of its owner's parameters, state and casts; deep copies share it."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __deepcopy__(self, _: dict[int, Any]) -> "_Unregistered":
        return self


def has_bfloat16_arithmetic() -> bool:
    """Whether this processor multiplies in bfloat16; where it does not, oneDNN emulates it slower than float32."""
    if not torch.cpu._is_avx2_supported():  # not x86: nothing is known, nothing is said against it
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
