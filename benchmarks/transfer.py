"""Accuracy of adapters on real data through the API of a running service, beside all baselines.

    mr up &                                     # or any service: MR_URL, MR_API_KEY
    python -m benchmarks.transfer               # resumes: rows whose jobs are done are read, not run again

Registers MobileNetV2 by upload, uploads cifar10 (200 training images a class), mnist and gtsrb, and trains a frame
around 32-pixel images on a 224-pixel canvas: Adam 0.01 with drops at 50 % and 72 %, batch 128, 10 epochs, all training
images, the last epoch's adapter; nothing is selected, and the test split is touched once. Writes
`results/transfer.md`. Needs the test data (`MR_TEST_DATA`, or shared/data beside the checkout).
"""

import argparse
import io
import math
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks.environment import test_data
from cli.client import TERMINAL, Client, connect
from cli.watching import watch

RESULTS = Path(__file__).parent / "results"
SETS = {"cifar10": 200, "mnist": None, "gtsrb": None}  # training images a class; None is all
MAPPINGS = ("iterative", "linear")
# Test accuracy in percent and its standard error: published prompt and mapping code, these settings, one seed.
PUBLISHED = {("cifar10", "iterative"): (39.4, 1.6), ("mnist", "iterative"): (50.4, 2.2)}
BASELINES = ("majority", "mapping_only", "linear_probe", "zero_shot", "random_backbone")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    arguments = parser.parse_args()
    data = test_data()
    if data is None:
        print("the test data is absent: set MR_TEST_DATA", file=sys.stderr)
        return 2
    with connect() as client:
        backbone = _backbone(client, data)
        jobs = [
            _submit(client, name, mapping, seed, _dataset(client, data, name), backbone)
            for name in arguments.sets
            for mapping in MAPPINGS
            for seed in range(arguments.seeds)
        ]
        rows = [finished(client, job) for job in jobs]
    table = _table(rows)
    (RESULTS / "transfer.md").write_text(table)
    print(table)
    return 0


def _backbone(client: Client, data: Path) -> str:
    for backbone in client.pages("/v1/backbones"):
        if backbone["name"] == "mobilenetv2 (benchmark)":
            return str(backbone["id"])
    form = {
        "name": "mobilenetv2 (benchmark)",
        "library": "timm",
        "architecture": "mobilenetv2_100",
        "arguments": '{"pad_type": "same"}',
        "preprocessing": '{"size": 224, "mean": [0.5,0.5,0.5], "std": [0.5,0.5,0.5], "interpolation": "bicubic"}',
    }
    weights = data / "weights" / "mobilenetv2_100_imagenet_fp16.safetensors"
    with weights.open("rb") as file:
        return str(client.upload("/v1/backbones", file, weights.name, form)["id"])


def _dataset(client: Client, data: Path, name: str) -> str:
    archive = data / "images" / f"{name}.zip"
    return str(uploaded(client, f"{name} (benchmark)", lambda: limited(archive, SETS[name]))["id"])


def uploaded(client: Client, title: str, archive: Callable[[], BinaryIO]) -> dict[str, Any]:
    """The dataset of that name, uploaded where the service has none."""
    for dataset in client.pages("/v1/datasets"):
        if dataset["name"] == title:
            return client.wait_for_dataset(dataset["id"])
    dataset = client.upload("/v1/datasets", archive(), "dataset.zip", {"name": title, "modality": "image"})
    return client.wait_for_dataset(dataset["id"])


def limited(path: Path, per_class: int | None) -> io.BytesIO:
    """The archive, with the first `per_class` training images of each class by name."""
    if per_class is None:
        return io.BytesIO(path.read_bytes())
    kept, counts = io.BytesIO(), Counter[str]()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(kept, "w") as target:
        for name in sorted(source.namelist()):
            split, _, rest = name.partition("/")
            if name.endswith("/"):
                continue
            label = rest.partition("/")[0]
            counts[label] += split == "train"
            if split == "test" or counts[label] <= per_class:
                target.writestr(name, source.read(name))
    kept.seek(0)
    return kept


def _submit(client: Client, name: str, mapping: str, seed: int, dataset: str, backbone: str) -> dict[str, Any]:
    row = f"{name}/{mapping}/{seed}"
    for job in client.pages("/v1/jobs", **{"metadata[transfer]": row}):
        if job["status"] not in ("failed", "cancelled"):
            return job
    return client.submit({
        "kind": "reprogram",
        "dataset": dataset,
        "backbone": backbone,
        "input_transform": {"kind": "padding", "image_size": 32},
        "label_mapping": {"kind": mapping},
        "trainer": {"kind": "gradient", "epochs": 10, "batch_size": 128, "selection": "last"},
        "evaluation": {"validation_fraction": 0, "random_backbone": mapping == "iterative"},
        "seed": seed,
        "metadata": {"transfer": row},
    })  # fmt: skip


def finished(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it has succeeded, followed on the terminal until then; SystemExit where it does not."""
    done = job if job["status"] in TERMINAL else watch(client, job["id"])
    done = client.get(f"/v1/jobs/{job['id']}")
    if done["status"] != "succeeded":
        raise SystemExit(f"{done['id']}: {done['status']}: {done['error']}")
    return dict(done)


def _table(jobs: list[dict[str, Any]]) -> str:
    lines = [
        "# MobileNetV2, frame prompt, at the published settings",
        "",
        (__doc__ or "").split("\n\n", 2)[2].replace("\n", " ").strip(),
        "",
        "Test accuracy in percent ± standard error of the test sample. *Published* is the same setting with the",
        "published prompt and mapping code.",
        "",
        "| data | mapping | seed | adapter | published | majority | mapping only | linear probe | zero-shot "
        "| random backbone | images/s | use |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for job in jobs:
        name, mapping, seed = job["metadata"]["transfer"].split("/")
        result = job["result"]
        test = result["metrics"]["test"]
        published = PUBLISHED.get((name, mapping))
        cells = [
            name,
            mapping,
            seed,
            _with_error(test["accuracy"], test["n"]),
            f"{published[0]} ± {published[1]}" if published else "-",
            *(_percent(result["baselines"][baseline]) for baseline in BASELINES),
            f"{result['timing']['images_per_second']:.0f}",
            result["verdict"]["use"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _with_error(accuracy: float, n: int) -> str:
    return f"{100 * accuracy:.1f} ± {100 * math.sqrt(accuracy * (1 - accuracy) / n):.1f}"


def _percent(scores: dict[str, Any] | None) -> str:
    return f"{100 * scores['test']['accuracy']:.1f}" if scores else "-"


if __name__ == "__main__":
    sys.exit(main())
