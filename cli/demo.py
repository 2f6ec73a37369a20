"""`mr demo`: the main job from upload to prediction, over HTTP, on a service that lives as long as the demo."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli.client import Client
from cli.digits import write_digits
from cli.errors import CommandError, Exit
from cli.output import accuracy, percent, print_table, say
from cli.watching import watch

_TRANSFORM = {"kind": "padding", "image_size": 48}
_LABEL_MAPPINGS = ({"kind": "iterative"}, {"kind": "linear"})
_EPOCHS = 2  # of small batches at one high rate: a first answer within three minutes on two cores, not the best one
_START_S, _STOP_S = 120.0, 90.0
_TOLERANCE = 1e-5  # of a probability, between the service and the library
_SAMPLE_IMAGES = 12
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

# What a user of the library would write, in a process that has seen nothing of this one.
_FRESH_PROCESS = """
import json, sys
from mr_core import load_adapter
classifier = load_adapter(sys.argv[1])
print(json.dumps([[p.label, p.probability] for p in classifier.predict(sys.argv[2:])]))
"""


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="PATH.zip", help="your images instead of handwritten digits")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="where the results go")
    parser.add_argument("--epochs", type=int, default=_EPOCHS, help="passes over the training images")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.data is not None and not zipfile.is_zipfile(arguments.data):
        raise CommandError(f"{arguments.data} is not a zip of train/<class>/ and test/<class>/")
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mr-demo-") as folder:
        scratch = Path(folder)
        archive = arguments.data or write_digits(scratch / "digits.zip")
        say("starting the service: gateway, workers, sweeper, PostgreSQL")
        with _service(scratch / "service") as client:
            return _main_job(client, archive, scratch, arguments, started)


def _main_job(client: Client, archive: Path, scratch: Path, arguments: argparse.Namespace, started: float) -> int:
    dataset = _upload(client, archive)
    base = {"dataset": dataset["id"], "input_transform": _TRANSFORM, "seed": 0}
    diagnosis = _do(client, "diagnosing before any training",
                    {**base, "kind": "diagnose", "label_mapping": {"kind": "linear"}, "samples": 100})  # fmt: skip
    print(
        f"diagnosis: {diagnosis['result']['verdict']['label']}: {diagnosis['result']['verdict']['reason']}", flush=True
    )
    trainings = [
        _do(
            client,
            f"training an adapter with the {mapping['kind']} mapping",
            _training(base, mapping, arguments.epochs),
        )
        for mapping in _LABEL_MAPPINGS
    ]
    best = max(trainings, key=lambda job: accuracy(job["result"]["metrics"], "validation") or 0.0)
    output: Path = arguments.output
    _download(client, output, diagnosis["id"], best)
    images = _sample(archive, scratch / "images")
    _compare(client, best["result"]["adapter"], output / "adapter.zip", images)
    summary = {
        "dataset": {name: dataset[name] for name in ("id", "name", "classes", "splits", "sha256")},
        "diagnosis": diagnosis["result"],
        "adapters": [_adapter_summary(job) for job in trainings],
        "best": best["result"]["adapter"],
        "seconds": round(time.monotonic() - started, 1),
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _print(trainings, best)
    print(f"{output}/: {', '.join(sorted(path.name for path in output.iterdir()))}  ({summary['seconds']} s in all)")
    return Exit.DONE


def _training(base: Mapping[str, Any], mapping: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    return {
        **base,
        "kind": "reprogram",
        "label_mapping": mapping,
        "trainer": {
            "kind": "gradient",
            "epochs": epochs,
            "batch_size": 16,
            "learning_rate": 0.03,
            "schedule": "constant",
        },
        "evaluation": {"random_backbone": True},
    }


def _upload(client: Client, archive: Path) -> dict[str, Any]:
    say(f"uploading {archive.name} ({archive.stat().st_size / 1024:.0f} KiB)")
    with archive.open("rb") as file:
        dataset = client.upload("/v1/datasets", file, archive.name, {"name": archive.stem, "modality": "image"})
    dataset = client.wait_for_dataset(dataset["id"])
    if dataset["status"] != "ready":
        raise CommandError(f"the dataset is {dataset['status']}: {dataset['error']['detail']}", Exit.FAILED)
    counts = ", ".join(f"{count} {split} images" for split, count in dataset["splits"].items())
    print(f"dataset: {len(dataset['classes'])} classes, {counts}", flush=True)
    return dataset


def _do(client: Client, words: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    say(words)
    job = watch(client, client.submit(spec)["id"])
    if job["status"] != "succeeded":
        error = job.get("error") or {}
        detail = f": {error['code']}: {error['detail']}" if error else ""
        raise CommandError(f"the job {job['id']} {job['status']}{detail}", Exit.FAILED)
    return job


def _download(client: Client, output: Path, diagnosis_id: str, best: Mapping[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    client.download(f"/v1/adapters/{best['result']['adapter']}/content", output / "adapter.zip")
    client.download(f"/v1/jobs/{diagnosis_id}/plots/spectrum.svg", output / "spectrum.svg")
    for name in ("plots/curves.svg", "plots/prompt.png"):
        client.download(f"/v1/jobs/{best['id']}/{name}", output / Path(name).name)
    client.download(f"/v1/jobs/{best['id']}/report", output / "report.html")


def _sample(archive: Path, folder: Path) -> list[Path]:
    """Some images of the archive, of the test split where it has one, spread over the classes."""
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.lower().endswith(_IMAGE_SUFFIXES))
        names = [name for name in names if "test/" in name] or names
        chosen = names[:: max(1, len(names) // _SAMPLE_IMAGES)][:_SAMPLE_IMAGES]
        folder.mkdir()
        paths = []
        for number, name in enumerate(chosen):
            path = folder / f"{number}{Path(name).suffix}"
            path.write_bytes(file.read(name))
            paths.append(path)
    return paths


def _compare(client: Client, adapter_id: str, adapter: Path, images: Sequence[Path]) -> None:
    """The downloaded file in a fresh process has to answer as the service does."""
    say("predicting with the service, and with the downloaded file in a fresh process")
    files = [("images", (path.name, path.read_bytes())) for path in images]
    answer = client.request("POST", f"/v1/adapters/{adapter_id}/predict", files=files, timeout=180).json()
    served = [(item["label"], item["probability"]) for item in answer["predictions"]]
    command = [sys.executable, "-c", _FRESH_PROCESS, str(adapter), *map(str, images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"the adapter does not load in a fresh process: {done.stderr.strip()[-500:]}", Exit.FAILED)
    local = json.loads(done.stdout)
    apart = max(abs(here[1] - there[1]) for here, there in zip(local, served, strict=True))
    if apart > _TOLERANCE or [label for label, _ in local] != [label for label, _ in served]:
        raise CommandError(f"service and library disagree by {apart:.2g} on the same images", Exit.FAILED)
    print(
        f"predictions: service and library agree on {len(images)} images (largest difference {apart:.1e})", flush=True
    )


def _adapter_summary(job: Mapping[str, Any]) -> dict[str, Any]:
    result = job["result"]
    return {
        "id": result["adapter"],
        "label_mapping": job["spec"]["label_mapping"]["kind"],
        "test_accuracy": accuracy(result["metrics"], "test"),
        "random_backbone_accuracy": accuracy(result["baselines"]["random_backbone"], "test"),
        "baselines": result["baselines"],
    }


def _print(trainings: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> None:
    rows = []
    for job in trainings:
        result = job["result"]
        values = [result["metrics"], *(result["baselines"][name] for name in
                  ("random_backbone", "majority", "mapping_only", "linear_probe", "zero_shot"))]  # fmt: skip
        name = job["spec"]["label_mapping"]["kind"] + (" (best)" if job is best else "")
        rows.append((name, *(percent(accuracy(value, "test")) for value in values), result["verdict"]["use"]))
    columns = (
        "test accuracy",
        "adapter",
        "random backbone",
        "majority",
        "mapping only",
        "linear probe",
        "zero-shot",
        "use",
    )
    print_table(columns, rows)


@contextmanager
def _service(data_dir: Path) -> Iterator[Client]:
    """`mr up` on a free port; stopped when the block ends, however it ends."""
    command = [sys.executable, "-m", "cli.part", str(os.getpid()), "up", "--data-dir", str(data_dir), "--port", "0"]
    data_dir.mkdir(mode=0o700)
    log = data_dir / "up.log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches the demo alone, which cancels its job before the service stops.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        give_up_at = time.monotonic() + _START_S
        while "\nready\n" not in f"\n{log.read_text(encoding='utf-8', errors='replace')}":
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise CommandError(f"the service does not start: {_last_words(data_dir)}", Exit.FAILED)
            time.sleep(0.1)
        address, key = ((data_dir / name).read_text(encoding="utf-8").strip() for name in ("address", "api-key"))
        with Client(address, key) as client:
            say(f"the service is ready at {address}")
            yield client
    finally:
        say("stopping the service")
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()  # its parts then stop by themselves


def _last_words(data_dir: Path) -> str:
    """The last line of every log: the folder is gone when the demo has ended."""
    logs = [data_dir / "up.log", *sorted((data_dir / "logs").glob("*.log"))]
    texts = {log.name: log.read_text(encoding="utf-8", errors="replace").strip() for log in logs}
    return "; ".join(f"{name}: {text.splitlines()[-1]}" for name, text in texts.items() if text)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
