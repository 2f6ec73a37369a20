"""What the gateway costs: time to start, memory, what a 300 MB upload adds, and how quickly a job is read meanwhile.

Starts a PostgreSQL and a gateway of its own: `python benchmarks/gateway.py [--megabytes 300] [--requests 2000]`.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.environment import allocator_settings
from service import datasets, jobs, keys, schema
from service.embedded import EmbeddedPostgres
from service.session import Database

# As `mr gateway` imports it; and the libraries alone, below which no gateway of this design can start.
_GATEWAY, _LIBRARIES = "api.main", "fastapi, sqlalchemy.orm, psycopg, pydantic_settings, structlog, httpx, fsspec"
_TRAINING = """
import torch
from mr_core.backbones.loading import load_backbone
from mr_core.engine import accelerate
from mr_core.input_transforms.padding.spec import PaddingSpec
backbone = accelerate(load_backbone("builtin/mini-clip"))
transform = PaddingSpec().build(backbone.preprocessing)
images = torch.rand(32, 3, transform.image_size, transform.image_size)
print("ready", flush=True)
while True:
    backbone(transform(images), "source_logits").logsumexp(1).sum().backward()
"""
_IMPORT = """
import gc, time
gc.disable()
cpu = time.process_time()
import {}
print(time.process_time() - cpu)
"""


@dataclass
class Running:
    """A gateway that answers."""

    process: psutil.Process
    client: httpx.Client
    job: str
    dataset: str
    seconds_to_ready: float

    @property
    def megabytes(self) -> float:
        return self.process.memory_info().rss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024, help="of the upload")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1000, help="submitted, then listed and filtered")
    arguments = parser.parse_args()
    imports = {modules: min(_seconds_to_import(modules) for _ in range(5)) for modules in (_GATEWAY, _LIBRARIES)}
    with tempfile.TemporaryDirectory(prefix="mr-bench-") as folder, _running(Path(folder)) as gateway:
        at_rest = gateway.megabytes
        quiet = _read_jobs(gateway, arguments.requests)
        warm = gateway.megabytes
        with _training():
            trained = _read_jobs(gateway, arguments.requests)
        many = _many_jobs(gateway, arguments.jobs)
        peak, busy, upload_s = _upload(gateway, arguments.megabytes)
        report = {
            "import_cpu_s": round(imports[_GATEWAY], 3),
            "import_of_libraries_cpu_s": round(imports[_LIBRARIES], 3),
            "ready_s": round(gateway.seconds_to_ready, 3),
            "rss_started_mb": round(at_rest, 1),
            "rss_warm_mb": round(warm, 1),
            f"rss_growth_in_upload_of_{arguments.megabytes}_mb": round(peak - warm, 1),
            "upload_mb_per_s": round(arguments.megabytes / upload_s, 1),
            "read_job_ms": _percentiles(quiet),
            "read_job_beside_a_training_ms": _percentiles(trained),
            "read_job_in_upload_ms": _percentiles(busy),
            f"with_{arguments.jobs}_jobs_ms": {name: _percentiles(seconds) for name, seconds in many.items()},
            "load_average": os.getloadavg()[0],
        }
    print(json.dumps(report, indent=1))


def _seconds_to_import(modules: str) -> float:
    """Of the processor, which tells more than the clock on a busy machine."""
    done = subprocess.run([sys.executable, "-c", _IMPORT.format(modules)], capture_output=True, text=True, check=True)
    return float(done.stdout)


@contextmanager
def _running(folder: Path) -> Iterator[Running]:
    server = EmbeddedPostgres(folder / "postgres")
    url = server.start()
    schema.upgrade(url)
    database = Database(url)
    with database.session() as session:
        _, key = keys.create_key(session, tenant="bench", name="bench", scopes=["admin"])
        dataset = datasets.create(
            session, tenant="bench", name="bench", modality="image", sha256="0" * 64, size_bytes=1
        )
        datasets.set_ready(
            session, dataset.id, pack_sha256="0" * 64, classes=["a", "b"], splits={"train": 100, "test": 20}, report={}
        )
        spec = {"kind": "reprogram", "dataset": dataset.id}
        job = jobs.create_job(session, tenant="bench", kind="reprogram", spec=spec, queue="cpu", dataset_id=dataset.id)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.perf_counter()
    settings = {
        "MR_DATA_DIR": str(folder / "data"),
        "MR_DATABASE_URL": url,
        "MR_LOG_LEVEL": "warning",
        "MR_REQUESTS_PER_MINUTE": "0",
        "MR_MAX_UNFINISHED_JOBS": "1000000",
    }
    command = [sys.executable, "-m", "cli.main", "gateway", "--port", str(port)]
    with subprocess.Popen(command, env={**os.environ, **settings}) as process:
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=120) as client:
            _wait_for(client)
            seconds = time.perf_counter() - started
            yield Running(psutil.Process(process.pid), client, job.id, dataset.id, seconds)
        process.terminate()
    database.dispose()
    server.stop()


def _wait_for(client: httpx.Client) -> None:
    while True:
        try:
            client.get("/healthz").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.01)


def _read_jobs(gateway: Running, n: int, stop: threading.Event | None = None) -> list[float]:
    taken = []
    with httpx.Client(base_url=gateway.client.base_url, headers=gateway.client.headers, trust_env=False) as client:
        while len(taken) < n and not (stop is not None and stop.is_set()):
            begin = time.perf_counter()
            client.get(f"/v1/jobs/{gateway.job}").raise_for_status()
            taken.append(time.perf_counter() - begin)
    return taken


@contextmanager
def _training() -> Iterator[None]:
    """Prompt steps through mini-clip in a process of their own, on all cores, as an attempt makes them."""
    process = subprocess.Popen([sys.executable, "-c", _TRAINING], stdout=subprocess.PIPE, env=allocator_settings())
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _many_jobs(gateway: Running, n: int) -> dict[str, list[float]]:
    """Seconds of each POST of n jobs, of each page of all of them, and of filters that find one of them."""
    taken: dict[str, list[float]] = {"submit": [], "page_of_200": [], "filter_by_metadata": [], "filter_by_status": []}
    client = gateway.client

    def timed(name: str, method: str, path: str, **options: Any) -> Any:
        begin = time.perf_counter()
        answer = client.request(method, path, **options)
        taken[name].append(time.perf_counter() - begin)
        answer.raise_for_status()
        return answer.json()

    for i in range(n):
        spec = {"kind": "reprogram", "dataset": gateway.dataset, "metadata": {"number": str(i)}}
        timed("submit", "POST", "/v1/jobs", json=spec)
    for _ in range(5):
        page = timed("page_of_200", "GET", "/v1/jobs?limit=200")
        while page["has_more"]:
            page = timed("page_of_200", "GET", f"/v1/jobs?limit=200&after={page['last_id']}")
    for i in range(0, n, max(1, n // 200)):
        page = timed("filter_by_metadata", "GET", "/v1/jobs", params={"metadata[number]": str(i)})
        assert len(page["data"]) == 1
        timed("filter_by_status", "GET", "/v1/jobs?status=queued&kind=reprogram")
    return taken


def _upload(gateway: Running, megabytes: int) -> tuple[float, list[float], float]:
    """Peak memory and times to read a job while a file comes that is refused once it is complete."""

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        chunk = os.urandom(2**20)
        for _ in range(megabytes):
            yield chunk
        yield b"\r\n--b--\r\n"

    done, peak, reads = threading.Event(), gateway.megabytes, []

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, gateway.megabytes)

    def read() -> None:
        reads.extend(_read_jobs(gateway, 100_000, done))

    threads = [threading.Thread(target=watch), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    begin = time.perf_counter()
    answer = gateway.client.post(
        "/v1/datasets", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    seconds = time.perf_counter() - begin
    done.set()
    for thread in threads:
        thread.join()
    assert answer.status_code == 422, answer.text  # random bytes are no archive
    return peak, reads, seconds


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"n": len(seconds), "p50": round(cuts[49] * 1e3, 2), "p99": round(cuts[98] * 1e3, 2)}


if __name__ == "__main__":
    main()
