"""The methods against each other on real data, through the API of a running service.

    mr up &                              # or any service: MR_URL, MR_API_KEY
    python -m benchmarks.methods         # resumes: what results/methods.json holds or a job has done is not run
    python -m benchmarks.methods --table clip --methods narrow/text narrow/residual --data mnist
    python -m benchmarks.methods --finished    # the tables of what there is; submits nothing

Size 96; about 600 training images, of which a fifth selects the epoch and the seed; 8 epochs of batches of 32; three
seeds a job, which draw the order of the images (prompts start alike). On MobileNetV2 Adam 0.01 with drops at 50 % and
72 %; on the open_clip-shaped model SGD 40 with a cosine, but Adam 0.01 for `residual` and masks, and entries cut to
0.001 for `text_scores`. `padding` has the image at 54 of 96 pixels, `narrow` at 82, `watermark` covers the canvas;
`clustered` are three groups of texts for the three prompts of `decoupled`. The random backbone is the same adapter on
random weights. pneumoniamnist's own training split lacks a class: its test images are divided instead.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.environment import test_data
from benchmarks.methods.cells import IMAGES_PER_CLASS, TABLES, Outcome, Table, outcome
from benchmarks.methods.page import page
from benchmarks.runs import earlier, finished
from cli.client import connect

RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--table", choices=TABLES, action="append", help="default: all")
    parser.add_argument("--data", nargs="*", choices=IMAGES_PER_CLASS, default=list(IMAGES_PER_CLASS))
    parser.add_argument("--methods", nargs="*", help="as in the table, transform/mapping[/trainer]; default: all")
    parser.add_argument("--finished", action="store_true", help="submit nothing: the tables of the jobs that are done")
    arguments = parser.parse_args()
    data = test_data()
    if data is None:
        print("the test data is absent: set MR_TEST_DATA", file=sys.stderr)
        return 2
    for name in arguments.table or TABLES:
        _fill(TABLES[name], arguments, data)
    return 0


def _fill(table: Table, arguments: argparse.Namespace, data: Path) -> None:
    path = RESULTS / f"{table.file}.json"  # what is known so far; delete it after a change of the settings
    known: dict[str, Outcome] = json.loads(path.read_text()) if path.exists() else {}
    with connect() as client:
        jobs = []
        for cell in table.cells(arguments.data, arguments.methods):
            if cell.name in known:
                continue
            job = earlier(client, table.labels(cell)) if arguments.finished else table.submit(client, data, cell)
            if job is not None and (not arguments.finished or job["status"] == "succeeded"):
                jobs.append((cell, job))
        for cell, job in jobs:
            known[cell.name] = outcome(client, finished(client, job))
            path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    cells = [cell for cell in table.cells(list(IMAGES_PER_CLASS), None) if cell.name in known]
    text = page(table, {cell: known[cell.name] for cell in cells}, about=about)
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
