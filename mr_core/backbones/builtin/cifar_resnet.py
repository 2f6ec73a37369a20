"""The small residual networks of He et al., 2016 (arXiv:1512.03385, section 4.2) for 32-pixel images."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mr_core.backbones.backbone import MapsOf, SourceModel
from mr_core.backbones.description import Output


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut takes every second pixel and pads channels with zeros (option A)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self._stride = stride
        self._added_channels = (n_out - n_in) // 2

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d u v"]:
        shortcut = maps[:, :, :: self._stride, :: self._stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, self._added_channels, self._added_channels))
        residual = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(maps)))))
        return torch.relu(residual + shortcut)


class CifarResNet(SourceModel):
    """Stem of 16, stages of 16, 32 and 64 channels with `blocks` blocks each, mean pool, `linear` to the classes."""

    def __init__(self, blocks: int, n_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, n_classes)
        self.embedding_width = 64
        self.n_source_classes = n_classes

    def outputs(self, canvases: Float[Tensor, "n 3 s s"], names: Sequence[Output]) -> dict[Output, Tensor]:
        embeddings = self.maps(canvases).mean(dim=(2, 3))
        results: dict[Output, Tensor] = {"embedding": embeddings}
        if "source_logits" in names:
            results["source_logits"] = self.linear(embeddings)
        return {name: results[name] for name in names}

    def maps(self, canvases: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n c h w"]:
        """The last stage's map."""
        maps: Tensor = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(canvases))))))
        return maps

    def map_tower(self) -> nn.Module:
        return MapsOf(self)


def _stage(n_in: int, n_out: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = _BasicBlock(n_in, n_out, stride)
    return nn.Sequential(first, *(_BasicBlock(n_out, n_out, 1) for _ in range(blocks - 1)))
