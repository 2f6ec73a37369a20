"""What a black box makes of a task by itself."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mr_core.backbones.backbone import Backbone
from mr_core.baselines import FrozenOutputs, named_sources
from mr_core.evaluation import evaluate
from mr_core.jobs.context import JobContext
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.label_mappings.selection import SelectionMapping


@dataclass(frozen=True)
class ZeroShot:
    """The API's classes for those of the task: by their names, or counted on the training images."""

    mapping: SelectionMapping
    by: Literal["names", "frequent_mapping"]
    validation: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """On validation images."""
        return float(self.validation["accuracy"])


def zero_shot(context: JobContext, api: Backbone, answers: FrozenOutputs) -> ZeroShot | None:
    """From the answers alone; None where the task has more classes than the API, of other names."""
    classes = context.dataset.classes
    if len(classes) > api.width("source_logits"):
        return None
    mapping = FrequentSpec().build(api, classes)
    named = named_sources(api.source_classes, classes)
    if named is not None:
        mapping.assign(named[:, None])
    else:
        mapping.fit(logits_of(answers, "train"), torch.from_numpy(answers.labels["train"]))
    found = mapping(logits_of(answers, "validation"))
    return ZeroShot(
        mapping=mapping,
        by="frequent_mapping" if named is None else "names",
        validation=evaluate(found, answers.labels["validation"], classes),
    )


def logits_of(answers: FrozenOutputs, part: Literal["train", "validation", "test"]) -> Tensor:
    """The API's log-probabilities for a part."""
    return answers.outputs[part]["source_logits"]
