"""A kernel of 3,000 rows in blocks, undisturbed and with a worker killed inside a block: the same bytes?

    python -m tests.cluster.kernel_blocks [--data-dir DIR]

300 digits of scikit-learn x 10 classes, the frame prompt of `builtin/mini-clip`, on a cluster of this machine alone:
gateway, sweeper, PostgreSQL, Redis and two workers of one thread each. During the second job a worker is killed
(SIGKILL) while its attempt takes the backward passes of a block, and is not started again: the other one does it.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.environment import describe_machine
from cli.client import TERMINAL, Client
from cli.digits import write_digits
from service import workers
from tests.cluster.cluster import Cluster

SPEC = {"kind": "diagnose", "input_transform": {"kind": "padding"}, "samples": 300, "device": "cpu"}
SETTINGS = {"MR_LEASE_S": "20", "MR_HEARTBEAT_S": "5"}  # a busy machine starts a process slowly


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="a new folder; one that is deleted afterwards if not given")
    folder = parser.parse_args().data_dir
    print(describe_machine())
    if folder is not None:
        return measure(folder)
    with tempfile.TemporaryDirectory(prefix="mr-blocks-") as temporary:
        return measure(Path(temporary))


def measure(folder: Path) -> int:
    """Both jobs; 0 where they end with the same bytes."""
    only = {"gateway": 1, "sweeper": 1, "io-worker": 1, "cpu-worker": 2}
    with Cluster(folder, only=only, settings=SETTINGS) as cluster, cluster.client() as client:
        with write_digits(folder / "digits.zip").open("rb") as archive:
            dataset = client.upload("/v1/datasets", archive, "digits.zip", {"name": "digits", "modality": "image"})
        spec = {**SPEC, "dataset": client.wait_for_dataset(dataset["id"])["id"]}
        undisturbed = _followed(client, spec)
        _tell("undisturbed", client, undisturbed)
        disturbed = _followed(client, spec, cluster)
        _tell("killed", client, disturbed)
        first, second = (_digest(client, job) for job in (undisturbed["job"], disturbed["job"]))
        left = sum(file.stat().st_size for file in (folder / "blobs").rglob("*") if file.is_file())
    verdict = "equal" if first == second else "NOT EQUAL"
    print(f"SHA-256 of spectrum, prediction and verdict: {first[:16]}, {second[:16]}: {verdict}")
    print(f"blob store afterwards: {left / 2**20:.1f} MiB")
    return 0 if first == second else 1


def _followed(client: Client, spec: dict[str, Any], cluster: Cluster | None = None) -> dict[str, Any]:
    """The job once it has ended, and the seconds that it took; with a cluster, one of its workers is killed."""
    started, killed_at = time.monotonic(), None
    job = client.submit(spec)
    while (job := client.get(f"/v1/jobs/{job['id']}"))["status"] not in TERMINAL:
        if cluster is not None and killed_at is None:
            block = next((part for part in _parts(client, job) if _is_inside(part)), None)
            if block is not None:
                name = _kill_worker_of(cluster, block)
                killed_at = time.monotonic()
                print(f"  kill -9 of {name} at {block['progress']['step']} of {block['progress']['total']} images")
        time.sleep(0.1)
    if job["status"] != "succeeded" or (cluster is not None and killed_at is None):
        raise SystemExit(f"{job['id']}: {job['status']}: {job['error']}; killed: {killed_at is not None}")
    return {"job": job, "seconds": time.monotonic() - started}


def _parts(client: Client, job: dict[str, Any]) -> list[dict[str, Any]]:
    return list(client.pages("/v1/jobs", parent=job["id"]))


def _is_inside(part: dict[str, Any]) -> bool:
    """Whether a block is at its backward passes, and past some of them."""
    return part["status"] == "running" and part["phase"] == "diagnosing" and (part["progress"] or {}).get("step", 0) > 0


def _kill_worker_of(cluster: Cluster, block: dict[str, Any]) -> str:
    with cluster.database() as database, database.session() as session:
        pids = {row.id: row.details["pid"] for row in workers.alive(session)}
    pid = pids[block["attempts"][-1]["worker"]]
    (name,) = (part.name for part in cluster.of("worker") if part.process is not None and part.process.pid == pid)
    os.kill(pid, signal.SIGKILL)
    return name


def _tell(name: str, client: Client, done: dict[str, Any]) -> None:
    job, parts = done["job"], sorted(_parts(client, done["job"]), key=lambda part: part["result"]["samples"])
    figures = job["result"]["spectrum"]
    size = f"{figures['n_samples']} x {figures['n_classes']} rows, {figures['n_parameters']} parameters"
    print(f"{name}: {size}; {done['seconds']:.1f} s from submission to result, load {os.getloadavg()[0]:.1f}")
    for part in parts:
        start, stop = part["result"]["samples"]
        seconds, size_mib = part["result"]["timing"]["seconds"], part["result"]["size_bytes"] / 2**20
        print(f"  samples {start} to {stop - 1}: {seconds:.1f} s, {size_mib:.0f} MiB of rows; {_attempts(part)}")
    phases = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in job["result"]["timing"]["phases"].items())
    print(f"  the diagnosis after its blocks: {phases}; {_attempts(job)}")


def _attempts(job: dict[str, Any]) -> str:
    """How its attempts ended, where, and the most memory that one held."""
    peak = max(attempt.get("peak_memory_bytes") or 0 for attempt in job["attempts"]) / 2**30
    ends = ", ".join(f"{attempt['outcome']} (worker {attempt['worker'][-4:]})" for attempt in job["attempts"])
    return f"{ends}; {peak:.2f} GiB of memory"


def _digest(client: Client, job: dict[str, Any]) -> str:
    """Of what the job says of its kernel: all but its times."""
    spectrum = client.get(f"/v1/jobs/{job['id']}/spectrum")
    told = [spectrum, job["result"]["predicted"], job["result"]["verdict"]]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
