"""The combinations, and their jobs on a running service: each is diagnosed, then trained from three seeds."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.prediction.sets import SETS
from benchmarks.runs import earlier, finished, uploaded
from cli.client import Client

CANVAS = 96
SAMPLES = 200
ROWS = 2400  # of a kernel: samples times classes
SEEDS = 3
TRAINER = {"kind": "gradient", "epochs": 8, "batch_size": 32}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}

PADDING = {"kind": "padding"}
WATERMARK = {"kind": "watermark"}
CONNECTED = {"kind": "fully_connected"}
ITERATIVE = {"kind": "iterative"}
BAYESIAN = {"kind": "bayesian_plus"}
PROBE = {"kind": "linear", "start": "probe"}
TEXT = {"kind": "text"}


@dataclass(frozen=True)
class Source:
    """How a backbone is registered: its file among the weights, and the form beside it."""

    file: str
    form: Mapping[str, Any]


SOURCES: Mapping[str, Source] = {
    "mobilenet": Source(
        "mobilenetv2_100_imagenet_fp16.safetensors",
        {"library": "timm", "architecture": "mobilenetv2_100", "arguments": {"pad_type": "same"},
         "preprocessing": HALF},
    ),
    "squeezenet": Source(
        "squeezenet1_1_imagenet_fp16.safetensors",
        {"library": "torchvision", "architecture": "squeezenet1_1", "preprocessing": IMAGENET},
    ),
    "cliptext": Source(
        "mnv2_cliptext_openclip_fp16.safetensors",
        {"library": "open_clip", "architecture": "mnv2-cliptext", "model_config": "mnv2-cliptext.json",
         "preprocessing": HALF},
    ),
    "resnet20": Source(
        "cifar10_resnet20_fp32.safetensors", {"library": "builtin", "architecture": "cifar_resnet20"}
    ),
    "resnet56": Source(
        "cifar10_resnet56_fp32.safetensors", {"library": "builtin", "architecture": "cifar_resnet56"}
    ),
}  # fmt: skip

COMBINATIONS: tuple[tuple[str, Mapping[str, Any], Mapping[str, Any]], ...] = (
    ("mobilenet", WATERMARK, ITERATIVE),
    ("resnet20", CONNECTED, ITERATIVE),
    ("mini-clip", PADDING, ITERATIVE),
    ("squeezenet", WATERMARK, BAYESIAN),
    ("cliptext", PADDING, TEXT),
    ("random:resnet20", WATERMARK, PROBE),
    ("mobilenet", PADDING, PROBE),
    ("random:mobilenet", PADDING, ITERATIVE),
    ("resnet56", PADDING, ITERATIVE),
    ("resnet20", WATERMARK, BAYESIAN),
    ("mini-clip", WATERMARK, BAYESIAN),
)


@dataclass(frozen=True)
class Combination:
    """One row of the grid."""

    data: str
    backbone: str
    transform: Mapping[str, Any]
    mapping: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.data}/{self.backbone}/{self.transform['kind']}/{self.mapping['kind']}"


def combinations(data: list[str]) -> Iterator[Combination]:
    """Every row on these sets, one combination on all of them before the next.

    A backbone that has seen a set's images is left out there.
    """
    for backbone, transform, mapping in COMBINATIONS:
        for name in data:
            if backbone not in SETS[name].leaks and not _impossible(name, backbone, mapping):
                yield Combination(name, backbone, transform, mapping)


def submitted(client: Client, data: Path, row: Combination) -> tuple[dict[str, Any], dict[str, Any]]:
    """The diagnosis and the training of a row, found again or submitted."""
    common = {
        "dataset": uploaded(client, f"{row.data} (prediction)", partial(SETS[row.data].archive, data))["id"],
        "backbone": _backbone(client, data, row.backbone),
        "input_transform": row.transform,
        "label_mapping": row.mapping,
    }
    diagnosis = {"kind": "diagnose", **common, "samples": min(SAMPLES, ROWS // SETS[row.data].n_classes)}
    training = {"kind": "reprogram", **common, "trainer": TRAINER, "repeats": SEEDS}
    jobs = []
    for spec in (diagnosis, training):
        labels = {"prediction": row.name, "part": str(spec["kind"])}
        jobs.append(earlier(client, labels) or client.submit({**spec, "metadata": labels}))
    return jobs[0], jobs[1]


def outcome(client: Client, jobs: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """What is kept of a row once both jobs have succeeded."""
    diagnosis, training = (finished(client, job)["result"] for job in jobs)
    spectrum, test = diagnosis["spectrum"], training["metrics"]["test"]
    validation_probe = training["baselines"]["linear_probe"]["validation"]
    return {
        "n_classes": spectrum["n_classes"],
        "n_parameters": spectrum["n_parameters"],
        "predicted": {name: diagnosis["predicted"][name] for name in ("accuracy", "accuracy_interval")},
        "linearised": diagnosis["predicted"]["linearised_accuracy"],
        "short_training": diagnosis["predicted"]["short_training_accuracy"],
        "scores": diagnosis["scores"] | {"kernel_target_alignment": spectrum["kernel_target_alignment"]},
        "baselines": diagnosis["baselines"],
        "probe_validation": validation_probe["accuracy"],
        "diagnose_s": diagnosis["timing"]["seconds"],
        "n_test": test["n"],
        "reached": [training["seeds"]["test"]["mean"], training["seeds"]["test"]["deviation"]],
        "reached_by_chosen": test["accuracy"],
        "train_s": training["timing"]["seconds"],
    }


def _impossible(data: str, backbone: str, mapping: Mapping[str, Any]) -> bool:
    """Ten source labels have no injective mapping onto twenty classes."""
    return data == "caltech101" and "resnet" in backbone and mapping["kind"] == "iterative"


def _backbone(client: Client, data: Path, name: str) -> str:
    prefix, _, source_name = name.rpartition(":")
    if source_name == "mini-clip":
        return "builtin/mini-clip"
    found = _registered(client, data, source_name)
    return f"{prefix}:{found}" if prefix else found


def _registered(client: Client, data: Path, name: str) -> str:
    title = f"{name} (prediction)"
    for backbone in client.pages("/v1/backbones"):
        if backbone["name"] == title:
            return str(backbone["id"])
    source, form = SOURCES[name], {"name": title}
    for field, value in source.form.items():
        if field == "model_config":
            value = (data / "weights" / value).read_text()
        elif field == "preprocessing":
            value = json.dumps({"size": CANVAS, "interpolation": "bicubic", **value})
        elif field == "arguments":
            value = json.dumps(value)
        form[field] = value
    with (data / "weights" / source.file).open("rb") as file:
        return str(client.upload("/v1/backbones", file, source.file, form)["id"])
