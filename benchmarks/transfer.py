"""Accuracy of adapters on real data through the API of a running service, beside all baselines.

    mr up &                                     # or any service: MR_URL, MR_API_KEY
    python -m benchmarks.transfer               # resumes: rows whose jobs are done are read, not run again

Registers MobileNetV2 by upload, with a canvas of 224 and one of 96 pixels, and writes `results/transfer.md`
(or `--output`). Needs the test data (`MR_TEST_DATA`, or shared/data beside the checkout).

*Published settings*: 32-pixel images on 224 pixels, Adam 0.01 with drops at 50 % and 72 %, batch 128, 10 epochs, all
training images (cifar10: 200 a class), the last epoch's adapter; nothing is selected. Equal counts of the frequent
mapping go to the first source class as in the published code; *own ties* is the default, the larger mean probability.
*Selected*: as many epochs and images, of which a fifth selects k, the epoch and the seed (of three); the images fill
the canvas, under a watermark.
*Small canvas*: 48-pixel images on 96 pixels, batch 32, 4 epochs, at most 100 training images a class, of which a fifth
selects the epoch; with the same adapter on a random backbone as a control of the iterative mapping.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environment import test_data
from benchmarks.runs import dataset_of, earlier, finished, mobilenet, percent, with_error
from cli.client import Client, connect

RESULTS = Path(__file__).parent / "results"
MAPPINGS: Mapping[str, Mapping[str, Any]] = {
    "iterative": {"kind": "iterative"},
    "iterative, first ties": {"kind": "iterative", "ties": "first"},  # the published greedy choice
    "linear": {"kind": "linear"},
    "bayesian_plus": {"kind": "bayesian_plus", "top_k": "validation"},
    "linear, from the probe": {"kind": "linear", "start": "probe"},
}


@dataclass(frozen=True)
class Protocol:
    """One way to train; `images` names each set's training images a class, None for all."""

    canvas: int
    transform: Mapping[str, Any]
    trainer: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    images: Mapping[str, int | None]
    mappings: Sequence[str]
    controlled: Sequence[str] = ()  # mappings also trained on a random backbone
    seeds: Sequence[int] = (0,)
    repeats: int = 1  # seeds of one job, of which validation chooses the adapter


PROTOCOLS = {
    "published": Protocol(
        canvas=224,
        transform={"kind": "padding", "image_size": 32},
        trainer={"kind": "gradient", "epochs": 10, "batch_size": 128, "selection": "last"},
        evaluation={"validation_fraction": 0},
        images={"mnist": None, "cifar10": 200},
        mappings=("iterative, first ties",),
        seeds=(0, 1, 2),
    ),
    "published, own ties": Protocol(
        canvas=224,
        transform={"kind": "padding", "image_size": 32},
        trainer={"kind": "gradient", "epochs": 10, "batch_size": 128, "selection": "last"},
        evaluation={"validation_fraction": 0},
        images={"mnist": None},
        mappings=("iterative",),
    ),
    "selected": Protocol(
        canvas=224,
        transform={"kind": "watermark"},
        trainer={"kind": "gradient", "epochs": 10, "batch_size": 128},
        evaluation={"validation_fraction": 0.2},
        images={"mnist": None, "cifar10": 200},
        mappings=("bayesian_plus", "linear, from the probe"),
        repeats=3,
    ),
    "small": Protocol(
        canvas=96,
        transform={"kind": "padding", "image_size": 48},
        trainer={"kind": "gradient", "epochs": 4, "batch_size": 32},
        evaluation={"validation_fraction": 0.2},
        images={"cifar10": 100, "mnist": 100, "gtsrb": 100},
        mappings=("iterative", "linear"),
        controlled=("iterative",),
    ),
}
# Test accuracy in percent and its standard error: published prompt and mapping code, these settings, one seed.
PUBLISHED = {"cifar10": (39.4, 1.6), "mnist": (50.4, 2.2)}
BASELINES = ("majority", "mapping_only", "linear_probe", "zero_shot", "random_backbone")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__.split("\n")[0])
    parser.add_argument("--protocols", nargs="*", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--output", type=Path, default=RESULTS / "transfer.md")
    parser.add_argument("--finished", action="store_true", help="submit nothing: the rows whose jobs have succeeded")
    arguments = parser.parse_args()
    data = test_data()
    if data is None:
        print("the test data is absent: set MR_TEST_DATA", file=sys.stderr)
        return 2
    with connect() as client:
        cells = [
            (protocol, name, mapping, seed)
            for protocol in arguments.protocols
            for name in PROTOCOLS[protocol].images
            for mapping in PROTOCOLS[protocol].mappings
            for seed in PROTOCOLS[protocol].seeds
        ]
        if arguments.finished:
            found = [earlier(client, _labels(*cell)) for cell in cells]
            rows = [job for job in found if job is not None and job["status"] == "succeeded"]
        else:
            jobs = [_submit(client, data, *cell) for cell in cells]
            rows = [finished(client, job) for job in jobs]
    table = _table(rows)
    arguments.output.write_text(table)
    print(table)
    return 0


def _submit(client: Client, data: Path, protocol_name: str, name: str, mapping: str, seed: int) -> dict[str, Any]:
    protocol = PROTOCOLS[protocol_name]
    labels = _labels(protocol_name, name, mapping, seed)
    return earlier(client, labels) or client.submit({
        "kind": "reprogram",
        "dataset": dataset_of(client, data, name, protocol.images[name]),
        "backbone": mobilenet(client, data, protocol.canvas),
        "input_transform": protocol.transform,
        "label_mapping": MAPPINGS[mapping],
        "trainer": protocol.trainer,
        "evaluation": {**protocol.evaluation, "random_backbone": mapping in protocol.controlled},
        "seed": seed,
        "repeats": protocol.repeats,
        "metadata": labels,
    })  # fmt: skip


def _labels(protocol: str, name: str, mapping: str, seed: int) -> dict[str, str]:
    return {"transfer": f"{protocol}/{name}/{mapping}", "seed": str(seed)}


def _table(jobs: list[dict[str, Any]]) -> str:
    lines = [
        "# MobileNetV2 with a prompt",
        "",
        (__doc__ or "").split("\n\n", 3)[3].strip(),
        "",
        "Test accuracy in percent ± standard error of the test sample. *Published*: the same setting with the",
        "published prompt and mapping code, one seed. *Seed*: the one, or mean ± deviation over three.",
        "",
        "| protocol | data | mapping | seed | adapter | published | majority | mapping only | linear probe | zero-shot "
        "| random backbone | images/s | use |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for job in jobs:
        protocol, name, mapping = job["metadata"]["transfer"].split("/")
        result = job["result"]
        test = result["metrics"]["test"]
        published = PUBLISHED.get(name) if protocol.startswith("published") else None
        several = PROTOCOLS[protocol].repeats > 1
        seeds = result["seeds"]["test"] if several else {}
        cells = [
            protocol,
            name,
            mapping,
            f"{100 * seeds['mean']:.1f} ± {100 * seeds['deviation']:.1f}" if several else str(job["spec"]["seed"]),
            with_error(test["accuracy"], test["n"]),
            f"{published[0]} ± {published[1]}" if published else "-",
            *(percent(result["baselines"][baseline]) for baseline in BASELINES),
            f"{result['timing']['images_per_second']:.0f}",
            result["verdict"]["use"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
