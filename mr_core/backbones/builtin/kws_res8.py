"""The keyword-spotting network res8 of Tang and Lin, 2018 (arXiv:1710.10361): speech features, not images."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mr_core.backbones.backbone import SourceModel
from mr_core.backbones.description import Output


class KwsRes8(SourceModel):
    """Input `(n, 1, 101, 40)`: 101 frames of 40 cepstral coefficients; 12 keywords by default.

    A 3x3 convolution and an average pool of (4, 3), then six 3x3 convolutions with ReLU; after every second
    one the previous residual is added; BatchNorm without affine parameters follows each; mean over time and frequency.
    """

    input_shape = (1, 101, 40)

    def __init__(self, maps: int = 45, n_classes: int = 12) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(1, maps, 3, padding=1, bias=False)
        for i in range(1, 7):
            self.add_module(f"conv{i}", nn.Conv2d(maps, maps, 3, padding=1, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(maps, affine=False))
        self.output = nn.Linear(maps, n_classes)
        self.embedding_width = maps
        self.n_source_classes = n_classes

    def outputs(self, canvases: Float[Tensor, "n 1 t f"], names: Sequence[Output]) -> dict[Output, Tensor]:
        maps = functional.avg_pool2d(torch.relu(self.conv0(canvases)), (4, 3))
        residual = maps
        for i in range(1, 7):
            convolved = torch.relu(self.get_submodule(f"conv{i}")(maps))
            if i % 2 == 0:
                residual = convolved = convolved + residual
            maps = self.get_submodule(f"bn{i}")(convolved)
        results: dict[Output, Tensor] = {"embedding": maps.mean(dim=(2, 3))}
        if "source_logits" in names:
            results["source_logits"] = cast(Tensor, self.output(results["embedding"]))
        return {name: results[name] for name in names}
