"""A result in words and tables, filled into the page."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

_CAPTIONS = {
    "spectrum": "Spectrum of the tangent kernel and the share of the labels that its eigenvectors explain",
    "curves": "Loss and accuracy over the training",
    "prompt": "The learned prompt around the place of the image",
    "mapping": "Which backbone outputs speak for which class",
    "confusion": "Which classes are taken for which",
    "search": "Trials of the search, by what they reached on validation images",
}
_ABSENT = "-"
_SPLITS = ("validation accuracy", "test accuracy")
_NAMES = {
    "adapter": "This adapter",
    "source": "This source model",
    "majority": "Always the most frequent class",
    "mapping_only": "The mapping without a trained prompt",
    "linear_probe": "A linear probe on the frozen features",
    "zero_shot": "Zero-shot by class names",
    "random_backbone": "The same adapter on a random backbone",
}


@dataclass(frozen=True)
class Row:
    """One line of the comparison."""

    name: str
    values: tuple[str, ...]
    chosen: bool


def reprogram_report(
    *,
    result: Mapping[str, Any],
    pictures: Mapping[str, str],
    classes: Sequence[str],
    spec: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> str:
    """The page of a training: verdict, the adapter beside every baseline, pictures (svg by name), spec, provenance."""
    verdict = result["verdict"]
    facts = {
        "trainable parameters": f"{result['trainable_parameters']:,}",
        "backbone unchanged": "yes, by checksum" if result["backbone_unchanged"] else "NO",
        "seconds": _number(result["timing"]["seconds"]),
        "images per second": _number(result["timing"].get("images_per_second")),
        "classes": _listed(classes),
    }
    if result.get("texts"):
        facts["texts"] = _listed([f"{name}: {text}" for name, text in result["texts"].items()])
    return _fill(
        title="Reprogramming", headline=_advice(verdict, "adapter"), reason=verdict["reason"],
        good=verdict["use"] == "adapter", columns=_SPLITS, rows=_comparison(result, "adapter"), facts=facts,
        pictures=pictures, spec=spec, provenance=provenance,
    )  # fmt: skip


def train_source_report(
    *,
    result: Mapping[str, Any],
    pictures: Mapping[str, str],
    classes: Sequence[str],
    spec: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> str:
    """The page of a source model: verdict, the model beside its baselines, pictures, spec, provenance."""
    verdict = result["verdict"]
    facts = {
        "parameters": f"{result['parameters']['total']:,}, of which {result['parameters']['trained']:,} were trained",
        "input": f"{' x '.join(map(str, result['input']['shape']))}, {result['input']['from'].replace('_', ' ')}",
        "kept epoch": f"{result['training']['kept_epoch']} of {result['training']['epochs']}",
        "seconds": _number(result["timing"]["seconds"]),
        "classes": _listed(classes),
    }
    return _fill(
        title="Source model", headline=_advice(verdict, "source"), reason=verdict["reason"],
        good=verdict["use"] == "source", columns=_SPLITS, rows=_comparison(result, "source"), facts=facts,
        pictures=pictures, spec=spec, provenance=provenance,
    )  # fmt: skip


def diagnose_report(
    *,
    result: Mapping[str, Any],
    pictures: Mapping[str, str],
    classes: Sequence[str],
    spec: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> str:
    """The page of a diagnosis: verdict, predicted accuracy with its interval, the spectrum's numbers, pictures."""
    predicted, verdict = result["predicted"], result["verdict"]
    interval = predicted.get("accuracy_interval")
    span = f"{_percent(interval[0])} to {_percent(interval[1])}" if interval else _ABSENT
    rows = [Row("Predicted before training", (_percent(predicted.get("accuracy")), span), False)]
    if predicted.get("calibration") is not None:
        rows.append(Row("By the linearised model alone", (_percent(predicted["linearised_accuracy"]), _ABSENT), False))
    if predicted.get("short_training_accuracy") is not None:
        rows.append(Row("Of a short training", (_percent(predicted["short_training_accuracy"]), _ABSENT), False))
    facts = {
        name.replace("_", " "): _plain(value) for name, value in result["spectrum"].items() if name != "label_energy"
    }
    return _fill(
        title="Diagnosis", headline=verdict["label"].replace("_", " ").capitalize(), reason=verdict["reason"],
        good=verdict["label"] in {"promising", "linear_probe_suffices"},
        columns=("accuracy", "90 % interval"), rows=rows, facts=facts | {"classes": _listed(classes)},
        pictures=pictures, spec=spec, provenance=provenance,
    )  # fmt: skip


def _comparison(result: Mapping[str, Any], trained: str) -> list[Row]:
    """What was trained, and every baseline, on validation and test images."""
    accuracies = {trained: result["metrics"], **result["baselines"]}
    return [
        Row(
            _NAMES.get(name, name),
            tuple(_percent(_accuracy((values or {}).get(split))) for split in ("validation", "test")),
            name == result["verdict"]["use"],
        )
        for name, values in accuracies.items()
    ]


def _advice(verdict: Mapping[str, Any], trained: str) -> str:
    if verdict["use"] == trained:
        return f"Use the {'source model' if trained == 'source' else trained}"
    return f"Use the baseline {verdict['use'].replace('_', ' ')} instead"


def _fill(*, pictures: Mapping[str, str], spec: Mapping[str, Any], provenance: Mapping[str, Any], **words: Any) -> str:
    return _template().render(
        pictures=[(_CAPTIONS.get(name, name), _inline(name, svg)) for name, svg in pictures.items()],
        spec=json.dumps(spec, indent=2, default=str),
        subject=f"{spec.get('backbone', '')} on {spec.get('dataset', '')}",
        provenance={str(name): _plain(value) for name, value in provenance.items()},
        **words,
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))


def _inline(name: str, svg: str) -> Markup:
    """The picture's element alone, its ids made its own: several pictures share a page."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", element)
    return Markup(element)  # noqa: S704 - written by matplotlib, which escapes the text in it


def _accuracy(value: Any) -> Any:
    return value.get("accuracy") if isinstance(value, Mapping) else value


def _percent(value: Any) -> str:
    return _ABSENT if value is None else f"{100 * value:.1f} %"


def _number(value: Any) -> str:
    return _ABSENT if value is None else f"{value:,.1f}" if abs(value) < 1e6 else f"{value:.3g}"


def _plain(value: Any) -> str:
    if value is None:
        return _ABSENT
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_plain(item)}" for name, item in value.items())
    return str(value)


def _listed(classes: Sequence[str], limit: int = 30) -> str:
    more = f" and {len(classes) - limit} more" if len(classes) > limit else ""
    return f"{len(classes)}: " + ", ".join(classes[:limit]) + more
