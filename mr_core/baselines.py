"""What an adapter is measured against: no model, no prompt, a probe, the text tower."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mr_core.backbones.backbone import Backbone
from mr_core.backbones.description import Output
from mr_core.evaluation import chunks
from mr_core.input_transforms.module import InputTransform
from mr_core.label_mappings.module import LabelMapping
from mr_core.observer import Observer
from mr_core.probe import fit_probe
from mr_core.trainers.trainer import LabelledImages

Part = Literal["train", "validation", "test"]
Scores = dict[str, Any]  # {"validation": metrics or None, "test": metrics or None}


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
        for chunk in chunks(len(data), max(1, backbone.chunk_size // transform.views)):
            for name, values in backbone.outputs(transform(data.batch(chunk, device)), names).items():
                collected[name].append(transform.side_by_side(values).cpu())
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
    read = {part: outputs[mapping.reads].repeat(1, mapping.views) for part, outputs in frozen.outputs.items()}
    labelled = {part: (outputs, torch.from_numpy(frozen.labels[part])) for part, outputs in read.items()}
    mapping.fit(*labelled["train"], validation=labelled.get("validation"))
    with torch.no_grad():
        return _scores(frozen, lambda part: mapping(read[part]))


def zero_shot(frozen: FrozenOutputs, text_mapping: LabelMapping) -> Scores:
    """Cosines with the embedded class names."""
    return _scores(frozen, lambda part: text_mapping(frozen.outputs[part]["image_text"]))


def named_sources(source_classes: Sequence[str] | None, classes: Sequence[str]) -> NDArray[np.int64] | None:
    """The source class of the same name for each target class, letter case aside; None unless each has one alone."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(source_classes or ()):
        places.setdefault(_plain(name), []).append(i)
    found = [places.get(_plain(name), []) for name in classes]
    if any(len(indices) != 1 for indices in found) or len({indices[0] for indices in found}) != len(classes):
        return None
    return np.array([indices[0] for indices in found], dtype=np.int64)


def named_classes(frozen: FrozenOutputs, sources: NDArray[np.int64]) -> Scores:
    """Zero-shot of a model that knows the classes by name: its own scores of them."""
    return _scores(frozen, lambda part: frozen.outputs[part]["source_logits"][:, torch.from_numpy(sources)])


def linear_probe(frozen: FrozenOutputs, *, n_classes: int, observer: Observer, reads: Output = "embedding") -> Scores:
    """Logistic regression on the standardised embedding of the training part, its penalty chosen on validation."""
    features = {part: outputs[reads] for part, outputs in frozen.outputs.items()}
    labelled = {part: (values.numpy(), frozen.labels[part]) for part, values in features.items()}
    probe = fit_probe(labelled["train"], n_classes=n_classes, validation=labelled.get("validation"), beat=observer.beat)
    return _scores(frozen, lambda part: probe.logits(features[part]))


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


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
