"""Diagnose and train the grid on a running service, then say how well the diagnosis predicted.

    mr up &                                  # or any service: MR_URL, MR_API_KEY; more workers make it faster
    python -m benchmarks.prediction          # resumes: rows in results/prediction.json are not run again
    python -m benchmarks.prediction --calibrate 1  # also writes the coefficients that the package ships

Backbones at 96 pixels (CIFAR ResNets at 32); at most 450 training images a set, of which a fifth selects epoch and
seed; Adam 0.01 with drops at 50 % and 72 %, batch 32, 8 epochs, three seeds, whose mean test accuracy is what counts as
reached. Diagnosed on at most 200 training images. Sets with leaks are left out for the backbones that saw them.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.environment import test_data
from benchmarks.prediction.grid import combinations, outcome, submitted
from benchmarks.prediction.report import measured, page
from benchmarks.prediction.sets import SETS
from cli.client import connect
from mr_core.ntk.calibration import COEFFICIENTS, fit

RESULTS = Path(__file__).parents[1] / "results"
ROWS = RESULTS / "prediction.json"  # what is known so far; delete it after a change of the settings
FEWEST_SETS = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--known", action="store_true", help="run nothing: the page of the rows that are known")
    parser.add_argument("--calibrate", metavar="VERSION", help="write the package's coefficients under this version")
    arguments = parser.parse_args()
    known: dict[str, dict[str, Any]] = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    if not arguments.known:
        data = test_data()
        if data is None:
            print("the test data is absent: set MR_TEST_DATA", file=sys.stderr)
            return 2
        _run(data, arguments.data, known)
    if len({name.split("/")[0] for name in known}) < FEWEST_SETS:
        print(f"{len(known)} rows: leaving datasets out needs {FEWEST_SETS} of them", file=sys.stderr)
        return 1
    text = page(known, settings=(__doc__ or "").split("\n\n")[2].strip())
    (RESULTS / "prediction.md").write_text(text)
    print(text)
    if arguments.calibrate:
        rows = [measured(name, row) for name, row in known.items()]
        COEFFICIENTS.write_text(fit(rows, version=arguments.calibrate).to_json())
    return 0


def _run(data: Path, sets: list[str], known: dict[str, dict[str, Any]]) -> None:
    with connect() as client:
        rows = [row for row in combinations(sets) if row.name not in known]
        jobs = [(row, submitted(client, data, row)) for row in rows]
        for row, pair in jobs:
            known[row.name] = outcome(client, pair)
            ROWS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
