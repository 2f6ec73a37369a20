"""`make bench`: every benchmark that needs no running service, one after the other, results kept in `results/`."""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.environment import allocator_settings

RESULTS = Path(__file__).parent / "results"
SCRIPTS = ("prompt_step", "vit_step", "ntk_diagnose", "ntk", "gateway")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=SCRIPTS, help=f"which of {', '.join(SCRIPTS)}")
    failed = []
    for name in parser.parse_args().names:
        print(f"== {name}", flush=True)
        process = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"],
            env=allocator_settings(),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        print(process.stdout, flush=True)
        if process.returncode:
            failed.append(name)
        else:
            (RESULTS / f"{name}.txt").write_text(process.stdout)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
