"""The theory of reprogramming's tangent kernels, replicated through the API of a running service.

mr up &                                  # or any service: MR_URL, MR_API_KEY
python -m experiments.ntk_theory         # resumes: what the file of outcomes holds or a job has done is not run
python -m experiments.ntk_theory --page  # the page of what is known; submits nothing
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.environment import test_data
from cli.client import connect
from experiments.ntk_theory.cells import SCALES, source_cells
from experiments.ntk_theory.page import write_page
from experiments.ntk_theory.running import Outcomes, run
from mr_core.backbones.description import MINI_CLIP

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.ntk_theory", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--experiments", nargs="*", choices=["e1", "e2"], default=["e1", "e2"])
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--architectures", nargs="*", choices=["mlp", "cnn"], default=["mlp", "cnn"])
    parser.add_argument("--depths", nargs="*", type=int, help="default: those of the scale")
    parser.add_argument("--draws", nargs="*", type=int, help="default: those of the scale")
    parser.add_argument("--base", default=MINI_CLIP, help="of E2: the backbone whose frozen map the sources read")
    parser.add_argument("--outcomes", type=Path, help="default: experiments/ntk_theory/results/SCALE.json")
    parser.add_argument(
        "--output", type=Path, help="the page; default: docs/ntk_theory.md, of the toy beside its outcomes"
    )
    parser.add_argument("--page", action="store_true", help="write the page of what is known; submit nothing")
    arguments = parser.parse_args()
    scale = SCALES[arguments.scale]
    path = arguments.outcomes or Path(__file__).parent / "results" / f"{scale.name}.json"
    output = arguments.output or (path.with_suffix(".md") if scale.name == "toy" else ROOT / "docs" / "ntk_theory.md")
    outcomes = Outcomes(path)
    wanted = replace(scale, depths=tuple(arguments.depths or scale.depths), draws=tuple(arguments.draws or scale.draws))
    if not arguments.page:
        data = test_data()
        if data is None:
            print("the test data is absent: set MR_TEST_DATA", file=sys.stderr)
            return 2
        with connect() as client:
            for experiment in arguments.experiments:
                cells = source_cells(experiment, wanted, base=arguments.base)
                run(client, data, [cell for cell in cells if cell.architecture in arguments.architectures], outcomes)
    write_page(output, outcomes.known, scale, base=arguments.base)
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
