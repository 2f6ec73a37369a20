"""`auto` against the table of methods on MobileNetV2, through the API of a running service.

    mr up &                               # or any service: MR_URL, MR_API_KEY
    python -m benchmarks.search           # after benchmarks.methods, whose results it reads; finds its jobs again

A search with defaults (but for the trainer, which is the table's) of the same images, its trials limited to a tenth of
the seconds that the table of that set took: the last round and the winner's own training come on top, and at most a
quarter of the table's time is asked for. A cell whose seconds were not noted counts as the quickest of the others. The
best configuration of the table is the best on the test images, so it is an optimistic rival; the regret is how far the
search's adapter is from it, and the interval is the paired bootstrap's over test images.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.environment import test_data
from benchmarks.methods.cells import IMAGES_PER_CLASS, TABLES, Outcome, dataset, outcome, right
from benchmarks.runs import earlier, finished, with_error
from cli.client import Client, connect
from mr_core.paired_bootstrap import paired_bootstrap

RESULTS = Path(__file__).parent / "results"
TABLE = TABLES["mobilenet"]
SHARE = 1 / 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", choices=IMAGES_PER_CLASS, default=["mnist", "gtsrb", "cifar10"])
    options = parser.parse_args()
    data = test_data()
    if data is None:
        print("the test data is absent: set MR_TEST_DATA", file=sys.stderr)
        return 2
    table: dict[str, Outcome] = json.loads((RESULTS / f"{TABLE.file}.json").read_text())
    lines = [
        "# The search against the table",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        "| data | the search took | its accuracy | the table's best | its accuracy | difference | interval | worse"
        " beyond noise | linear probe | seconds | of the table's | trials |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    with connect() as client:
        cells = {name: _of(table, name) for name in options.data}
        jobs = {name: _submit(client, data, name, SHARE * _seconds(cells[name])) for name in options.data}
        for name, job in jobs.items():
            lines.append(_row(client, name, finished(client, job), cells[name]))
    text = "\n".join(lines) + "\n"
    (RESULTS / "search.md").write_text(text)
    print(text)
    return 0


def _of(table: Mapping[str, Outcome], name: str) -> dict[str, Outcome]:
    """The table's cells on that set, by method."""
    return {cell.partition("/")[2]: found for cell, found in table.items() if cell.startswith(f"{name}/")}


def _seconds(cells: Mapping[str, Outcome]) -> float:
    """That all cells took."""
    noted = [cell["seconds"] for cell in cells.values() if "seconds" in cell]
    return float(sum(noted) + (len(cells) - len(noted)) * min(noted))


def _submit(client: Client, data: Path, name: str, seconds: float) -> dict[str, Any]:
    labels = {"search": name}
    return earlier(client, labels) or client.submit({
        "kind": "auto",
        "dataset": dataset(client, data, name),
        "backbone": TABLE.backbone(client, data),
        "trainers": [{key: value for key, value in TABLE.trainer.items() if key != "epochs"}],
        "budget": {"max_seconds": round(seconds)},
        "max_epochs": 18,
        "metadata": labels,
    })  # fmt: skip


def _row(client: Client, name: str, job: Mapping[str, Any], cells: Mapping[str, Outcome]) -> str:
    found, result = outcome(client, job), job["result"]
    best = max(cells, key=lambda method: cells[method]["accuracy"])
    difference = paired_bootstrap(right(found), right(cells[best]), seed=0)
    low, high = difference.interval
    seconds = result["timing"]["seconds"] + result["timing"]["trials_seconds"]
    row = (
        name,
        result["search"]["winner"]["name"],
        with_error(found["accuracy"], found["n"]),
        best,
        with_error(cells[best]["accuracy"], cells[best]["n"]),
        f"{100 * difference.difference:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        "yes" if high < 0 else "no",
        f"{100 * result['baselines']['linear_probe']['test']['accuracy']:.1f}",
        f"{seconds:.0f}",
        f"{100 * seconds / _seconds(cells):.0f} % of {_seconds(cells):.0f}, {len(cells)} cells",
        f"{len(result['search']['trials'])}, ended by {result['search']['ended_by']}",
    )
    return f"| {' | '.join(row)} |"


if __name__ == "__main__":
    sys.exit(main())
