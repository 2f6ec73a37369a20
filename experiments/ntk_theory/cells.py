"""What is run: sources by depth and draw, and on each the transforms by target."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

Name = Literal["e1", "e2"]


@dataclass(frozen=True)
class Scale:
    """How much of it: images a class, widths, epochs at most."""

    name: str
    depths: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    draws: tuple[int, ...] = (42, 43, 44)
    source_images: int = 200  # of each class
    target_images: int = 100
    mlp_width: int = 512
    cnn_width: int = 32
    map_width: int = 64
    source_epochs: int = 100
    target_epochs: int = 150
    kernel_samples: int = 100


SCALES = {
    "full": Scale("full"),
    "small": Scale(  # an evening of two processor cores
        "small",
        depths=(1, 2, 4, 6),
        source_images=100,
        target_images=40,
        mlp_width=256,
        cnn_width=16,
        map_width=32,
        source_epochs=40,
        target_epochs=60,
        kernel_samples=60,
    ),
    "toy": Scale(
        "toy",
        depths=(1, 2),
        draws=(42,),
        source_images=6,
        target_images=5,
        mlp_width=16,
        cnn_width=4,
        map_width=4,
        source_epochs=2,
        target_epochs=1,
        kernel_samples=20,
    ),
}
SOURCE_DATA = "cifar10"
TARGET_DATA = ("mnist", "gtsrb")  # of gtsrb the first ten classes
CANVAS = 32
FRAMED = 28  # the image inside a frame, of 32 pixels
FC: Mapping[str, Any] = {"kind": "fully_connected", "image_size": CANVAS}
TRANSFORMS: Mapping[Name, Mapping[str, Mapping[str, Any]]] = {
    "e1": {
        "FC": FC,
        "VP": {"kind": "padding", "image_size": FRAMED},
        "FC+VP": {
            "kind": "sequence",
            "transforms": [
                {"kind": "fully_connected", "image_size": FRAMED},
                {"kind": "padding", "image_size": FRAMED},
            ],
        },
    },
    "e2": {"FC": FC, "VP": {"kind": "padding"}},
}
LEARNING_RATES = {"FC": 0.001, "VP": 0.1, "FC+VP": 0.001}
ARCHITECTURES: Mapping[Name, tuple[str, ...]] = {"e1": ("mlp", "cnn"), "e2": ("cnn",)}


@dataclass(frozen=True)
class SourceCell:
    """One source model."""

    experiment: Name
    scale: Scale
    architecture: str
    depth: int
    draw: int
    base: str | None = None  # the backbone whose frozen map it reads

    @property
    def name(self) -> str:
        parts = (self.experiment, self.scale.name, self.base or "pixels", self.architecture, self.depth, self.draw)
        return "/".join(map(str, parts)).replace("builtin/", "builtin-")

    def spec(self, dataset: str) -> dict[str, Any]:
        scale = self.scale
        width = scale.map_width if self.base else scale.mlp_width if self.architecture == "mlp" else scale.cnn_width
        return {
            "kind": "train_source",
            "dataset": dataset,
            "backbone": self.base,
            "canvas_size": None if self.base else CANVAS,
            "architecture": {"kind": self.architecture, "depth": self.depth, "width": width},
            "augment": self.base is None,
            "trainer": {"epochs": scale.source_epochs},
            "tangent_kernel": {"samples": scale.kernel_samples, "kernel": "trace"},
            "seed": self.draw,
            "metadata": {"ntk_theory": self.name},
        }


@dataclass(frozen=True)
class TargetCell:
    """One reprogramming of a source model."""

    source: SourceCell
    data: str
    transform: str

    @property
    def name(self) -> str:
        return f"{self.source.name}/{self.data}/{self.transform}"

    def training(self, dataset: str, backbone: str) -> dict[str, Any]:
        """The training of the transform, as far as known from the published experiments."""
        return self._around(dataset, backbone) | {
            "kind": "reprogram",
            "trainer": {
                "kind": "gradient",
                "learning_rate": LEARNING_RATES[self.transform],
                "schedule": "constant",
                "batch_size": 128,
                "epochs": self.source.scale.target_epochs,
                "selection": "lowest_validation_loss",
                "patience": 3,
            },
            "metadata": {"ntk_theory": self.name},
        }

    def diagnosis(self, dataset: str, backbone: str) -> dict[str, Any]:
        """The kernel of the transform's parameters before training."""
        return self._around(dataset, backbone) | {
            "kind": "diagnose",
            "samples": self.source.scale.kernel_samples,
            "short_training": False,
            "metadata": {"ntk_theory": f"{self.name}/kernel"},
        }

    def _around(self, dataset: str, backbone: str) -> dict[str, Any]:
        return {
            "dataset": dataset,
            "backbone": backbone,
            "input_transform": TRANSFORMS[self.source.experiment][self.transform],
            "label_mapping": {"kind": "identity"},
            "seed": self.source.draw,
        }


def source_cells(experiment: Name, scale: Scale, *, base: str) -> list[SourceCell]:
    """Every source of an experiment, shallow ones first."""
    grid = product(ARCHITECTURES[experiment], scale.draws, scale.depths)
    read = base if experiment == "e2" else None
    return [SourceCell(experiment, scale, kind, depth, draw, read) for kind, draw, depth in grid]


def target_cells(source: SourceCell) -> list[TargetCell]:
    """What is reprogrammed on a source."""
    return [TargetCell(source, *pair) for pair in product(TARGET_DATA, TRANSFORMS[source.experiment])]
