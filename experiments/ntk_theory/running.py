"""Jobs of the cells: found again by their metadata, their outcomes kept in a file."""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.runs import earlier, uploaded
from cli.client import TERMINAL, Client
from cli.watching import watch
from experiments.ntk_theory.cells import SOURCE_DATA, TARGET_DATA, Scale, SourceCell, TargetCell, target_cells

N_CLASSES = 10
Known = dict[str, dict[str, Any]]
Begun = tuple[TargetCell, dict[str, Any], dict[str, Any]]  # its training and its diagnosis
_KERNEL = ("lambda_max", "lambda_min", "numerical_rank", "trace", "n_samples", "n_parameters", "resolution")


class Outcomes:
    """What is known so far, by the cell's name, in a JSON file that grows with each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: Known = json.loads(path.read_text()) if path.exists() else {}

    def keep(self, name: str, outcome: Mapping[str, Any]) -> None:
        self.known[name] = dict(outcome)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".part")
        partial.write_text(json.dumps(self.known, indent=1, sort_keys=True) + "\n")
        partial.replace(self._path)


def run(client: Client, data: Path, cells: list[SourceCell], outcomes: Outcomes) -> None:
    """All cells; what is known or was begun is not run again.

    All sources are queued first, and what is reprogrammed on each as soon as it is there, so that several workers have
    enough to do.
    """
    if not cells:
        return
    ids = datasets(client, data, cells[0].scale)
    open_cells = [cell for cell in cells if set(_names(cell)) - outcomes.known.keys()]
    for cell in open_cells:
        _submitted(client, cell.spec(ids[SOURCE_DATA]))
    begun: list[Begun] = []
    for cell in open_cells:
        job = ended(client, _submitted(client, cell.spec(ids[SOURCE_DATA])))
        outcomes.keep(cell.name, _of_source(job))
        if job["status"] == "succeeded":
            begun += _begin_targets(client, cell, job["result"]["backbone"], ids, outcomes)
    for target, training, diagnosis in begun:
        outcomes.keep(target.name, _of_target(ended(client, training), ended(client, diagnosis)))


def datasets(client: Client, data: Path, scale: Scale) -> dict[str, str]:
    """Ids of the sets, uploaded where the service has none."""
    sizes = {SOURCE_DATA: scale.source_images} | dict.fromkeys(TARGET_DATA, scale.target_images)
    found = {}
    for name, per_class in sizes.items():
        archive = data / "images" / f"{name}.zip"
        title = f"{name}, ten classes, {per_class} a class (ntk theory)"
        found[name] = str(uploaded(client, title, lambda a=archive, n=per_class: ten_classes(a, n))["id"])
    return found


def ten_classes(path: Path, per_class: int) -> io.BytesIO:
    """The first ten classes by name, of each the first so many training images, and at most as many of test."""
    kept, counts = io.BytesIO(), Counter[tuple[str, str]]()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(kept, "w") as target:
        members = sorted(name for name in source.namelist() if name.count("/") >= 2 and not name.endswith("/"))
        classes = sorted({name.split("/")[1] for name in members})[:N_CLASSES]
        for name in members:
            split, label = name.split("/")[:2]
            counts[split, label] += 1
            if label in classes and counts[split, label] <= per_class:
                target.writestr(name, source.read(name))
    kept.seek(0)
    return kept


def ended(client: Client, job: Mapping[str, Any]) -> dict[str, Any]:
    """The job once it has ended, however it did, followed on the terminal until then."""
    if job["status"] not in TERMINAL:
        watch(client, str(job["id"]))
    return dict(client.get(f"/v1/jobs/{job['id']}"))


def _begin_targets(
    client: Client, cell: SourceCell, backbone: str, ids: Mapping[str, str], outcomes: Outcomes
) -> list[Begun]:
    todo = [target for target in target_cells(cell) if target.name not in outcomes.known]
    return [
        (
            target,
            _submitted(client, target.training(ids[target.data], backbone)),
            _submitted(client, target.diagnosis(ids[target.data], backbone)),
        )
        for target in todo
    ]


def _submitted(client: Client, spec: Mapping[str, Any]) -> dict[str, Any]:
    return earlier(client, spec["metadata"]) or client.submit(spec)


def _names(cell: SourceCell) -> Iterator[str]:
    yield cell.name
    yield from (target.name for target in target_cells(cell))


def _of_source(job: Mapping[str, Any]) -> dict[str, Any]:
    if job["status"] != "succeeded":
        return {"error": job["error"]}
    result = job["result"]
    kernels = {
        when: kernel and {name: kernel[name] for name in _KERNEL if name in kernel}
        for when, kernel in result["tangent_kernel"].items()
    }
    return {
        "accuracy": result["metrics"]["test"]["accuracy"],
        "loss": result["metrics"]["test"]["loss"],
        "probe": result["baselines"]["linear_probe"]["test"]["accuracy"],
        "majority": result["baselines"]["majority"]["test"]["accuracy"],
        "epochs": result["training"]["epochs"],
        "parameters": result["parameters"],
        "kernels": kernels,
        "n_outputs": N_CLASSES,
        "seconds": result["timing"]["seconds"],
    }


def _of_target(training: Mapping[str, Any], diagnosis: Mapping[str, Any]) -> dict[str, Any]:
    outcome: dict[str, Any] = {"error": training["error"], "kernel_error": diagnosis["error"]}
    if training["status"] == "succeeded":
        result = training["result"]
        outcome |= {
            "accuracy": result["metrics"]["test"]["accuracy"],
            "loss": result["metrics"]["test"]["loss"],
            "alone": result["baselines"]["mapping_only"]["test"],
            "epochs": result["training"]["epochs"],
            "seconds": result["timing"]["seconds"],
        }
    if diagnosis["status"] == "succeeded":
        spectrum = diagnosis["result"]["spectrum"]
        outcome["kernel"] = {name: spectrum[name] for name in (*_KERNEL, "n_classes", "label_energy")}
        outcome["seconds"] = outcome.get("seconds", 0) + diagnosis["result"]["timing"]["seconds"]
    return outcome
