"""What costs one forward pass of the sample: scores of every cell of the grid, and the cells that cannot be."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import Output
from mr_core.baselines import frozen_outputs
from mr_core.errors import ReprogrammingError
from mr_core.input_transforms.base import InputTransformSpec
from mr_core.jobs.cheap_scores import NO_SCORES, cheap_scores
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.baselines import untrained_accuracy
from mr_core.jobs.preparation import ImageSource, ready_backbone
from mr_core.jobs.rank.spec import RankSpec
from mr_core.label_mappings.base import LabelMappingSpec
from mr_core.ntk.prediction import stratified_folds
from mr_core.observer import Checkpoint
from mr_core.views import require_equal_views

N_FOLDS = 5

Error = Mapping[str, Any]  # code, detail, param


@dataclass(frozen=True)
class Cell:
    """A backbone, an input transform and a label mapping, by their places in the spec's lists.

    `untrained` is the held-out accuracy of the mapping without training (of a linear probe where the mapping has
    weights), through the untrained transform; `scores` are taken there too (`cheap_scores`). A cell that does not
    `train` has no parameters at all: its untrained accuracy is its accuracy. An impossible cell has an error.
    """

    backbone: int
    input_transform: int
    label_mapping: int
    untrained: float | None = None
    scores: Mapping[str, float | None] = field(default_factory=lambda: dict(NO_SCORES))
    trains: bool = True
    n_samples: int | None = None
    error: Error | None = None

    @property
    def name(self) -> str:
        return f"{self.backbone}-{self.input_transform}-{self.label_mapping}"

    @property
    def promise(self) -> tuple[float, float]:
        """What survivors are chosen by: the larger the better."""
        return self.untrained or 0.0, self.scores["logme"] or 0.0

    @classmethod
    def impossible(cls, places: tuple[int, int, int], error: ReprogrammingError) -> Self:
        return cls(*places, error={"code": error.code, "detail": error.detail, "param": error.param})


def screen(spec: RankSpec, context: JobContext, chosen: NDArray[np.int64]) -> list[Cell]:
    """Every cell of the grid, in its order; kept in a checkpoint, since a job of sub-jobs comes here more than once.

    `chosen` are the places of the sample in the train split. One backbone is held in memory at a time.
    """
    kept = context.observer.load_checkpoint("screening")
    if kept is not None:
        return [Cell(**cell) for cell in kept.state["cells"]]
    cells: list[Cell] = []
    for place in range(len(spec.backbones)):
        cells += _of_backbone(place, spec, context, chosen)
    state = {"cells": [asdict(cell) for cell in cells]}
    context.observer.save_checkpoint("screening", Checkpoint(len(cells), state, {}))
    return cells


def _of_backbone(place: int, spec: RankSpec, context: JobContext, chosen: NDArray[np.int64]) -> Iterator[Cell]:
    backbone: Backbone | None = None
    for i, transform in enumerate(spec.input_transforms):
        try:
            if backbone is None or backbone.calibrated_statistics:  # which are of the images in one transform
                backbone = ready_backbone(context, spec.backbones[place], transform)
            transform.check(backbone.canvas_size)
            outputs, labels = _outputs(transform, backbone, context, chosen)
        except ReprogrammingError as error:
            yield from (Cell.impossible((place, i, j), error) for j in range(len(spec.label_mappings)))
            continue
        folds = stratified_folds(labels.numpy(), np.arange(len(labels)), n_folds=N_FOLDS, seed=spec.seed)
        scores = cheap_scores(outputs, labels)
        for j, mapping in enumerate(spec.label_mappings):
            try:
                require_equal_views(transform.views, mapping.views)
                accuracy = _untrained(mapping, backbone, outputs, labels, folds, context)
            except ReprogrammingError as error:
                yield Cell.impossible((place, i, j), error)
            else:
                trains = _trains(transform, mapping, backbone, context)
                yield Cell(place, i, j, untrained=accuracy, scores=scores, trains=trains, n_samples=len(labels))


def _outputs(
    transform: InputTransformSpec, backbone: Backbone, context: JobContext, chosen: NDArray[np.int64]
) -> tuple[Mapping[Output, Tensor], Tensor]:
    """The sample's outputs through the untrained transform (the largest size where it is left open)."""
    largest = max(transform.choices(backbone.canvas_size), key=lambda choice: choice.size_on(backbone.canvas_size))
    module = largest.build(backbone.preprocessing).to(context.device)
    sample = ImageSource(context, backbone).read(module, "train", chosen)
    frozen = frozen_outputs(
        backbone,
        module,
        {"train": sample},
        backbone.available_outputs,
        device=context.device,
        observer=context.observer,
    )
    return frozen.outputs["train"], torch.from_numpy(sample.labels)


def _trains(transform: InputTransformSpec, mapping: LabelMappingSpec, backbone: Backbone, context: JobContext) -> bool:
    modules = (transform.build(backbone.preprocessing), mapping.build(backbone, context.dataset.classes))
    return any(True for module in modules for _ in module.parameters())


def _untrained(
    spec: LabelMappingSpec,
    backbone: Backbone,
    outputs: Mapping[Output, Tensor],
    labels: Tensor,
    folds: Sequence[Tensor],
    context: JobContext,
) -> float:
    classes = context.dataset.classes
    mapping = spec.build(backbone, classes).cpu()
    context.observer.beat()
    return untrained_accuracy(mapping, outputs, labels, folds, n_classes=len(classes))
