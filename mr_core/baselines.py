"""What an adapter is measured against: no model, no prompt, a probe, the text tower."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from mr_core.backbones.backbone import Backbone, Output
from mr_core.evaluation import chunks
from mr_core.input_transforms.module import InputTransform
from mr_core.label_mappings.module import LabelMapping
from mr_core.observer import Observer
from mr_core.trainers.trainer import LabelledImages

Part = Literal["train", "validation", "test"]
Scores = dict[str, Any]  # {"validation": metrics or None, "test": metrics or None}
PROBE_GRID = (0.001, 0.01, 0.1, 1.0, 10.0)  # sklearn's C, on standardised features
DEFAULT_C = 0.1


@dataclass(frozen=True)
class FrozenOutputs:
    """A backbone's outputs for each part, `(n, d)` on the CPU, of the images alone; and the labels."""

    outputs: Mapping[Part, Mapping[Output, Tensor]]
    labels: Mapping[Part, NDArray[np.int64]]


@torch.no_grad()
def frozen_outputs(
    backbone: Backbone,
    transform: InputTransform,
    parts: Mapping[Part, LabelledImages],
    names: Sequence[Output],
    *,
    device: torch.device,
    observer: Observer,
) -> FrozenOutputs:
    """One pass over each part; memory is `n (d_1 + d_2 + ...)` floats."""
    total, done = sum(len(data) for data in parts.values()), 0
    outputs: dict[Part, dict[Output, Tensor]] = {}
    for part, data in parts.items():
        collected: dict[Output, list[Tensor]] = {name: [] for name in names}
        for chunk in chunks(len(data), backbone.chunk_size):
            for name, values in backbone.outputs(transform(data.batch(chunk, device)), names).items():
                collected[name].append(values.cpu())
            done += chunk.stop - chunk.start
            observer.progress(done, total, unit="image")
        outputs[part] = {name: torch.cat(values) for name, values in collected.items()}
    return FrozenOutputs(outputs=outputs, labels={part: data.labels for part, data in parts.items()})


def majority(frozen: FrozenOutputs, *, n_classes: int) -> Scores:
    """Always the most frequent training class; its logits are the log frequencies."""
    counts = np.bincount(frozen.labels["train"], minlength=n_classes)
    logits = torch.from_numpy(np.log(np.maximum(counts, 0.5) / counts.sum()))
    return _scores(frozen, lambda part: logits.expand(len(frozen.labels[part]), -1))


def mapping_only(frozen: FrozenOutputs, mapping: LabelMapping) -> Scores:
    """The label mapping on the images alone, without a prompt; for a mapping that has no weights to train."""
    mapping.fit(frozen.outputs["train"][mapping.reads], torch.from_numpy(frozen.labels["train"]))
    with torch.no_grad():
        return _scores(frozen, lambda part: mapping(frozen.outputs[part][mapping.reads]))


def zero_shot(frozen: FrozenOutputs, text_mapping: LabelMapping) -> Scores:
    """Cosines with the embedded class names."""
    return _scores(frozen, lambda part: text_mapping(frozen.outputs[part]["image_text"]))


def linear_probe(frozen: FrozenOutputs, *, observer: Observer) -> Scores:
    """Logistic regression on the standardised embedding of the training part, C chosen on validation."""
    train = frozen.outputs["train"]["embedding"].double().numpy()
    mean, std = train.mean(0), train.std(0) + 1e-8
    features = {part: (outputs["embedding"].double().numpy() - mean) / std for part, outputs in frozen.outputs.items()}
    best: tuple[float, LogisticRegression] | None = None
    for c in PROBE_GRID if "validation" in features else (DEFAULT_C,):
        probe = LogisticRegression(C=c, max_iter=200)
        with warnings.catch_warnings():
            # The best of the grid is taken as it is after 200 steps of L-BFGS.
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(features["train"], frozen.labels["train"])
        observer.beat()
        score = (
            float(probe.score(features["validation"], frozen.labels["validation"])) if "validation" in features else 0.0
        )
        if best is None or score > best[0]:
            best = (score, probe)
    assert best is not None
    probe = best[1]
    return _scores(frozen, lambda part: _probe_logits(probe, features[part]))


def _probe_logits(probe: LogisticRegression, features: NDArray[np.float64]) -> Tensor:
    decisions = torch.from_numpy(np.asarray(probe.decision_function(features)))
    if decisions.ndim == 1:  # two classes: sklearn gives the log odds of the second
        return torch.stack([torch.zeros_like(decisions), decisions], dim=1)
    return decisions


def _scores(frozen: FrozenOutputs, logits_of: Callable[[Part], Tensor]) -> Scores:
    return {
        part: brief_metrics(logits_of(part), frozen.labels[part]) if part in frozen.labels else None
        for part in ("validation", "test")
    }


def brief_metrics(logits: Tensor, labels: NDArray[np.int64]) -> dict[str, float]:
    """Accuracy and cross entropy."""
    targets = torch.from_numpy(labels)
    return {
        "accuracy": float((logits.argmax(1) == targets).double().mean()),
        "loss": float(functional.cross_entropy(logits.double(), targets)),
    }
