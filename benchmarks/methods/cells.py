"""What is compared: the sets of data, and on each backbone the methods."""

import csv
import io
import itertools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from benchmarks.runs import earlier, limited, mobilenet, registered, uploaded
from cli.client import Client

IMAGES_PER_CLASS = {"cifar10": 60, "mnist": 60, "gtsrb": 14, "caltech101": 6, "pneumoniamnist": None}
SEEDS = 3
CANVAS = 96
BASELINES = ("mapping_only", "majority", "zero_shot", "linear_probe", "random_backbone")

Spec = Mapping[str, Any]
Outcome = dict[str, Any]  # of one cell, as the file of results keeps it

_ADAM: Spec = {"kind": "gradient", "epochs": 8, "batch_size": 32}
_CLIP: Spec = {**_ADAM, "optimizer": "sgd", "learning_rate": 40, "schedule": "cosine"}
TRANSFORMS: Mapping[str, Spec] = {
    "padding": {"kind": "padding"},
    "watermark": {"kind": "watermark"},
    "sample_specific_mask": {"kind": "sample_specific_mask"},
    "learnable_resize": {"kind": "learnable_resize"},
    "patch": {"kind": "patch"},
    "low_rank": {"kind": "low_rank"},
    "frequency": {"kind": "frequency"},
    "coordinator": {"kind": "coordinator"},
    "narrow": {"kind": "padding", "image_size": 82},
    "decoupled": {"kind": "decoupled", "prompts": 3},
}
MAPPINGS: Mapping[str, Spec] = {
    "random": {"kind": "random"},
    "frequent": {"kind": "frequent"},
    "iterative": {"kind": "iterative"},
    "bayesian": {"kind": "bayesian"},
    "bayesian_plus": {"kind": "bayesian_plus"},
    "linear": {"kind": "linear", "start": "probe"},
    "fully_mapped": {"kind": "linear", "on": "source_logits", "start": "mapped"},
    "text": {"kind": "text", "template": "This is a photo of a {}."},
    "template": {"kind": "template"},
    "attribute": {"kind": "attribute"},
    "probabilistic_reweighting": {"kind": "probabilistic_reweighting"},
    "clustered": {"kind": "probabilistic_reweighting", "clusters": 3},
    "residual": {"kind": "residual"},
    "text_scores": {"kind": "linear", "on": "text_scores", "start": "mapped"},
}
TRAINERS: Mapping[str, Spec] = {
    "": {},
    "zeroth_order": {"kind": "zeroth_order", "directions": 4, "epochs": 8, "batch_size": 32},
    "spsa": {"kind": "spsa", "epochs": 8, "batch_size": 32},
    "cma_es": {"kind": "cma_es", "population": 5, "epochs": 8, "batch_size": 32},
}


@dataclass(frozen=True)
class Cell:
    """A set of data and a method; `trainer` is empty for the backbone's own."""

    data: str
    transform: str
    mapping: str
    trainer: str = ""

    @property
    def name(self) -> str:
        return "/".join(filter(None, (self.data, self.transform, self.mapping, self.trainer)))

    @property
    def method(self) -> str:
        return self.name.partition("/")[2]


@dataclass(frozen=True)
class Table:
    """One backbone with the methods that are compared on it, and which are said to be better than which."""

    title: str
    file: str
    backbone: Callable[[Client, Path], str]
    trainer: Spec
    methods: tuple[str, ...]  # transform/mapping[/trainer]
    orders: tuple[tuple[str, str], ...]  # worse, better
    trainers: Mapping[str, Spec]  # of transforms and mappings that ask for another

    def cells(self, data: list[str], methods: list[str] | None) -> Iterator[Cell]:
        """Every method on these sets, one on all of them before the next."""
        for method in methods or self.methods:
            for name in data:
                yield Cell(name, *method.split("/"))

    def labels(self, cell: Cell) -> dict[str, str]:
        """What its job is found by."""
        return {self.file: cell.name}

    def trainer_of(self, cell: Cell) -> Spec:
        """The cell's own, else that of its transform or mapping, else the table's."""
        asked = (self.trainers.get(name) for name in (cell.transform, cell.mapping))
        return TRAINERS[cell.trainer] or next(filter(None, asked), self.trainer)

    def submit(self, client: Client, data: Path, cell: Cell) -> dict[str, Any]:
        """The cell's job, a new one where there is none yet."""
        return earlier(client, self.labels(cell)) or client.submit({
            "kind": "reprogram",
            "dataset": dataset(client, data, cell.data),
            "backbone": self.backbone(client, data),
            "input_transform": TRANSFORMS[cell.transform],
            "label_mapping": MAPPINGS[cell.mapping],
            "trainer": self.trainer_of(cell),
            "repeats": SEEDS,
            "evaluation": {"random_backbone": cell.mapping in ("iterative", "text") and not cell.trainer},
            "metadata": self.labels(cell),
        })  # fmt: skip


def dataset(client: Client, data: Path, name: str) -> str:
    """The id of a set of the table, uploaded where the service has none."""
    return str(uploaded(client, f"{name} (methods benchmark)", lambda: _archive(data, name))["id"])


def outcome(client: Client, job: Mapping[str, Any]) -> Outcome:
    """What is kept of a finished job."""
    text = client.request("GET", f"/v1/jobs/{job['id']}/artifacts/predictions.csv").text
    rows = sorted(csv.DictReader(io.StringIO(text)), key=lambda row: row["image"])
    result, seeds = job["result"], job["result"]["seeds"]
    return {
        "n": result["metrics"]["test"]["n"],
        "accuracy": result["metrics"]["test"]["accuracy"],
        "seeds": seeds and [seeds["test"]["mean"], seeds["test"]["deviation"]],  # None of a single training
        "baselines": {name: result["baselines"].get(name) for name in BASELINES},
        "use": result["verdict"]["use"],
        "seconds": round(result["timing"]["seconds"], 1),
        "parameters": result["trainable_parameters"],
        "right": "".join("1" if row["label"] == row["predicted"] else "0" for row in rows),
    }


def right(outcome: Outcome) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """1 where the adapter was right and 0 where not, by test image."""
    return np.array([float(digit) for digit in outcome["right"]])


def _archive(data: Path, name: str) -> BinaryIO:
    path = data / "images" / f"{name}.zip"
    if name != "pneumoniamnist":
        return limited(path, IMAGES_PER_CLASS[name])
    kept = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(kept, "w") as target:
        for member in sorted(source.namelist()):
            if member.startswith("test/") and not member.endswith("/"):
                target.writestr(member.removeprefix("test/"), source.read(member))
    kept.seek(0)
    return kept


def _text_model(client: Client, data: Path) -> str:
    weights = data / "weights" / "mnv2_cliptext_openclip_fp16.safetensors"
    config = (data / "weights" / "mnv2-cliptext.json").read_text()
    form = {"library": "open_clip", "architecture": "mnv2-cliptext", "model_config": config}
    return registered(client, f"mnv2-cliptext at {CANVAS} px (benchmark)", weights, form, canvas=CANVAS)


_MAPPED = ("random", "frequent", "iterative", "bayesian", "bayesian_plus")  # arXiv:2410.24018, each above the last
TABLES = {
    "mobilenet": Table(
        title="Methods on MobileNetV2",
        file="methods",
        backbone=lambda client, data: mobilenet(client, data, CANVAS),
        trainer=_ADAM,
        trainers={},
        methods=(
            *(f"{transform}/{mapping}" for transform in ("padding", "watermark") for mapping in (*_MAPPED, "linear")),
            "sample_specific_mask/iterative",
            "sample_specific_mask/linear",
            "learnable_resize/fully_mapped",
            "low_rank/iterative",
            "frequency/iterative",
            "patch/iterative",
            "coordinator/iterative",
            "low_rank/frequent/zeroth_order",
            "low_rank/frequent/spsa",
            "low_rank/frequent/cma_es",
        ),
        orders=(
            *(
                (f"{transform}/{lower}", f"{transform}/{higher}")
                for transform in ("padding", "watermark")
                for lower, higher in itertools.pairwise(_MAPPED)
            ),
            ("watermark/iterative", "sample_specific_mask/iterative"),
            ("linear_probe", "watermark/linear"),
            ("linear_probe", "sample_specific_mask/linear"),
        ),
    ),
    "clip": Table(
        title="Methods on an open_clip-shaped model",
        file="methods_clip",
        backbone=_text_model,
        trainer=_CLIP,
        trainers={"sample_specific_mask": _ADAM, "residual": _ADAM, "text_scores": {**_CLIP, "clip_value": 0.001}},
        methods=(
            "narrow/text",
            "narrow/template",
            "narrow/attribute",
            "narrow/probabilistic_reweighting",
            "decoupled/clustered",
            "narrow/residual",
            "narrow/text_scores",
            "sample_specific_mask/template",
        ),
        orders=(
            ("narrow/text", "narrow/attribute"),
            ("narrow/attribute", "decoupled/clustered"),
            ("narrow/probabilistic_reweighting", "decoupled/clustered"),
            ("decoupled/clustered", "narrow/residual"),
        ),
    ),
}
