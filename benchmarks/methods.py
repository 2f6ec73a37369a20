"""Label mappings and input transforms against each other on real data, through the API of a running service.

    mr up &                              # or any service: MR_URL, MR_API_KEY
    python -m benchmarks.methods         # resumes: what results/methods.json holds or a job has done is not run
    python -m benchmarks.methods --finished    # the table of what there is; submits nothing

MobileNetV2 at 96 pixels; about 600 training images, of which a fifth selects the epoch and the seed; Adam 0.01 with
drops at 50 % and 72 %, batch 32, 8 epochs; three seeds a job, which draw the order of the images (prompts start at
zero). `padding` has the image at 54 of 96 pixels, `watermark` covers the canvas. The control is the same adapter with
the iterative mapping on a random backbone. pneumoniamnist's own training split lacks a class: its test images are
divided instead.
"""

import argparse
import csv
import io
import itertools
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from benchmarks.environment import test_data
from benchmarks.runs import earlier, finished, limited, mobilenet, percent, uploaded, with_error
from cli.client import Client, connect

RESULTS = Path(__file__).parent / "results"
CELLS = RESULTS / "methods.json"  # what is known so far; delete it after a change of the settings below
IMAGES_PER_CLASS = {"cifar10": 60, "mnist": 60, "gtsrb": 14, "caltech101": 6, "pneumoniamnist": None}
TRANSFORMS: Mapping[str, Mapping[str, Any]] = {"padding": {"kind": "padding"}, "watermark": {"kind": "watermark"}}
MAPPINGS: Mapping[str, Mapping[str, Any]] = {
    "random": {"kind": "random"},
    "frequent": {"kind": "frequent"},
    "iterative": {"kind": "iterative"},
    "bayesian": {"kind": "bayesian"},
    "bayesian_plus": {"kind": "bayesian_plus"},
    "linear": {"kind": "linear", "start": "probe"},
}
PUBLISHED_ORDER = (
    "random",
    "frequent",
    "iterative",
    "bayesian",
    "bayesian_plus",
)  # arXiv:2410.24018, each above the last
TRAINER = {"kind": "gradient", "epochs": 8, "batch_size": 32}
SEEDS = 3
CANVAS = 96
DRAWS = 2000

BASELINES = ("mapping_only", "majority", "linear_probe", "random_backbone")

Cell = tuple[str, str, str]  # data, transform, mapping
Outcome = dict[str, Any]  # of one cell, as results/methods.json keeps it


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="*", choices=IMAGES_PER_CLASS, default=list(IMAGES_PER_CLASS))
    parser.add_argument("--transforms", nargs="*", choices=TRANSFORMS, default=list(TRANSFORMS))
    parser.add_argument("--finished", action="store_true", help="submit nothing: the table of the jobs that are done")
    arguments = parser.parse_args()
    data = test_data()
    if data is None:
        print("the test data is absent: set MR_TEST_DATA", file=sys.stderr)
        return 2
    cells = [
        (name, transform, mapping)
        for transform in arguments.transforms
        for name in arguments.data
        for mapping in MAPPINGS
    ]
    known: dict[str, Outcome] = json.loads(CELLS.read_text()) if CELLS.exists() else {}
    with connect() as client:
        jobs: dict[Cell, dict[str, Any]] = {}
        for cell in [cell for cell in cells if "/".join(cell) not in known]:
            job = earlier(client, _labels(cell)) if arguments.finished else _submit(client, data, cell)
            if job is not None and (not arguments.finished or job["status"] == "succeeded"):
                jobs[cell] = job
        for cell, job in jobs.items():
            known["/".join(cell)] = _outcome(client, finished(client, job))
            CELLS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    text = _page({cell: known["/".join(cell)] for cell in cells if "/".join(cell) in known})
    (RESULTS / "methods.md").write_text(text)
    print(text)
    return 0


def _labels(cell: Cell) -> dict[str, str]:
    return {"methods": "/".join(cell)}


def _submit(client: Client, data: Path, cell: Cell) -> dict[str, Any]:
    name, transform, mapping = cell
    return earlier(client, _labels(cell)) or client.submit({
        "kind": "reprogram",
        "dataset": uploaded(client, f"{name} (methods benchmark)", lambda: _archive(data, name))["id"],
        "backbone": mobilenet(client, data, CANVAS),
        "input_transform": TRANSFORMS[transform],
        "label_mapping": MAPPINGS[mapping],
        "trainer": TRAINER,
        "repeats": SEEDS,
        "evaluation": {"random_backbone": mapping == "iterative"},
        "metadata": _labels(cell),
    })  # fmt: skip


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


def _outcome(client: Client, job: Mapping[str, Any]) -> Outcome:
    text = client.request("GET", f"/v1/jobs/{job['id']}/artifacts/predictions.csv").text
    rows = sorted(csv.DictReader(io.StringIO(text)), key=lambda row: row["image"])
    result = job["result"]
    return {
        "n": result["metrics"]["test"]["n"],
        "accuracy": result["metrics"]["test"]["accuracy"],
        "seeds": [result["seeds"]["test"]["mean"], result["seeds"]["test"]["deviation"]],
        "baselines": {name: result["baselines"].get(name) for name in BASELINES},
        "use": result["verdict"]["use"],
        "right": "".join("1" if row["label"] == row["predicted"] else "0" for row in rows),
    }


def _page(outcomes: Mapping[Cell, Outcome]) -> str:
    lines = [
        "# Label mappings and input transforms on MobileNetV2",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        "Test accuracy in percent: mean ± deviation over the seeds, and the adapter that validation chose ± the",
        "standard error of the test sample. *Alone*: the mapping on the images without a prompt.",
        "",
        "| data | transform | mapping | seeds | adapter | alone | majority | linear probe | random backbone | use |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, transform, mapping), outcome in outcomes.items():
        mean, deviation = outcome["seeds"]
        cells = (
            name,
            transform,
            mapping,
            f"{100 * mean:.1f} ± {100 * deviation:.1f}",
            with_error(outcome["accuracy"], outcome["n"]),
            *(percent(outcome["baselines"][baseline]) for baseline in BASELINES),
            outcome["use"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_orders(outcomes)]) + "\n"


def _orders(outcomes: Mapping[Cell, Outcome]) -> list[str]:
    lines = [
        "## The published order",
        "",
        f"{' < '.join(PUBLISHED_ORDER)}, each pair on the same test images: difference in points of the adapters that",
        f"validation chose, with its 90 % interval ({DRAWS} paired bootstrap draws over test images). *Holds*: the",
        "interval lies above 0; *reversed*: below; else *open*.",
        "",
        "| data | transform | pair | difference | interval | order |",
        "|---|---|---|---|---|---|",
    ]
    for name, transform in dict.fromkeys((name, transform) for name, transform, _ in outcomes):
        for lower, higher in itertools.pairwise(PUBLISHED_ORDER):
            pair = [outcomes.get((name, transform, mapping)) for mapping in (lower, higher)]
            if pair[0] is None or pair[1] is None:
                continue
            difference, low, high = paired_bootstrap(pair[0]["right"], pair[1]["right"])
            verdict = "holds" if low > 0 else "reversed" if high < 0 else "open"
            row = (name, transform, f"{lower} < {higher}", f"{difference:+.1f}", f"{low:+.1f} to {high:+.1f}", verdict)
            lines.append(f"| {' | '.join(row)} |")
    return lines


def paired_bootstrap(first: str, second: str) -> tuple[float, float, float]:
    """Accuracy of the second minus the first in points, with the 5 % and 95 % quantiles over draws of images.

    Each is a string of 1 (right) and 0 by test image, in the same order.
    """
    pairs = zip(first, second, strict=True)
    gains: NDArray[np.float64] = np.array([float(after) - float(before) for before, after in pairs])
    draws = np.random.default_rng(0).integers(0, len(gains), size=(DRAWS, len(gains)))
    low, high = np.quantile(gains[draws].mean(1), [0.05, 0.95])
    return 100 * float(gains.mean()), 100 * float(low), 100 * float(high)


if __name__ == "__main__":
    sys.exit(main())
