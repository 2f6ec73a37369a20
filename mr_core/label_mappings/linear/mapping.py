"""A trained linear layer."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mr_core.label_mappings.module import LabelMapping


class LinearMapping(LabelMapping):
    """`W outputs + b`. Starts at zero, from where the first predictions are uniform."""

    def __init__(self, *, width: int, n_targets: int, reads: Literal["embedding", "source_logits"]) -> None:
        super().__init__()
        self.reads = reads
        self.weight = nn.Parameter(torch.zeros(n_targets, width))
        self.bias = nn.Parameter(torch.zeros(n_targets))

    def forward(self, outputs: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return functional.linear(outputs, self.weight, self.bias)

    def matrix(self) -> Float[Tensor, "d c"]:
        return self.weight.detach().T
