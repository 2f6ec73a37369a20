"""A cluster used for long: `python -m tests.cluster.soak --minutes 60`.

Rounds of jobs of every kind, cancels, uploads that break off, predictions, restarts and deletes; each round ends with
nothing under way and everything deleted. Prints what was done, and processes, memory, open files and connections over
time; fails where a job has not ended exactly once, something grows, or a row or blob is left after the last collection.
Of each service the first process lives all the time, the others are restarted.
"""

import argparse
import base64
import contextlib
import hashlib
import os
import random
import secrets
import socket
import statistics
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from sqlalchemy import func, select

from benchmarks.environment import describe_machine
from cli.client import Client
from cli.digits import write_digits
from cli.errors import ApiError
from cli.supervision import Part, stop
from service.models import Base
from tests.cluster.chaos import connections, faults_in_rows, left_behind, unfinished
from tests.cluster.cluster import Cluster
from tests.cluster.workload import Workload
from tests.processes import wait_until

SETTINGS = {
    "MR_UPLOAD_EXPIRY_S": "30",
    "MR_ORPHAN_BLOB_S": "30",
    "MR_FEATURE_CACHE_BYTES": str(1 << 20),
    "MR_MAX_ADAPTERS": "100",
    "MR_MAX_DATASETS": "20",
}
JOBS = 10
EXPIRED_S = 35  # by then everything deleted is old enough to be collected
KEPT = ("api_keys",)  # rows that belong to nothing that is deleted
HISTORY = ("jobs", "events", "ended_attempts", "artifacts", "spectra", "daily_usage", "webhook_deliveries", "workers")
MEMORY_MB, FILES, CONNECTIONS = 16, 8, 8  # growth from the second quarter to the last that is no leak


@dataclass
class Sample:
    """The cluster between two rounds."""

    minute: float
    memory_mb: dict[str, float]
    files: dict[str, int]
    processes: int
    connections: int
    rows: dict[str, int]
    blob_files: int
    blob_mb: float


@dataclass
class Soak:
    """One round after another on a running cluster."""

    cluster: Cluster
    folder: Path
    seed: int
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._started = time.monotonic()
        self._idle = connections(self.cluster)

    def round(self) -> None:
        """Jobs and everything else at once; then wait, look at the rows, and delete all there is."""
        workload = Workload(self.cluster, self.folder, JOBS, self._random.randrange(10**6), pace_s=2)
        try:
            workload.prepare()
            actions = [self._break_upload_off, self._abandon_upload, self._restart, lambda: self._predict(workload)]
            self._random.shuffle(actions)
            act_at = time.monotonic()
            with self.cluster.database() as database:
                while not (workload.is_posted and not actions and not unfinished(database)):
                    workload.tick()
                    if actions and time.monotonic() >= act_at:
                        actions.pop()()
                        act_at = time.monotonic() + self._random.uniform(1, 6)
                    self.cluster.look_after()
                    time.sleep(0.2)
                    assert time.monotonic() - act_at < 600, f"not ended: {unfinished(database)}"
                self.faults += faults_in_rows(database, workload.posted)
            self.done["jobs"] += len(workload.posted) + 1
            self.done["retries"] += workload.retried
        finally:
            workload.close()
        self.done["rounds"] += 1
        self._delete_all()
        self.faults += left_behind(self.cluster, self._idle)
        self.samples.append(self._sample())

    def _break_upload_off(self) -> None:
        """The connection goes away in the middle of the file."""
        url = urlsplit(self.cluster.urls[0])
        head = (
            f"POST /v1/datasets HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {self.cluster.key}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 50000000\r\n\r\n"
            '--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nbroken off\r\n'
            '--b\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
        )
        with socket.create_connection((url.hostname, url.port)) as connection:
            connection.sendall(head.encode() + secrets.token_bytes(4 << 20))
        self.done["uploads broken off"] += 1

    def _abandon_upload(self) -> None:
        """A resumable one, after its first part."""
        with self.cluster.client() as client:
            request = {"name": "abandoned", "size_bytes": 1 << 20, "part_bytes": 1 << 19}
            upload = client.request("POST", "/v1/uploads", json=request).json()
            content = secrets.token_bytes(1 << 19)
            digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
            headers = {"Content-Digest": f"sha-256=:{digest}:"}
            client.request("PUT", f"/v1/uploads/{upload['id']}/parts/1", content=content, headers=headers)
        self.done["uploads abandoned"] += 1

    def _predict(self, workload: Workload) -> None:
        image = self.folder / "image.png"
        if not image.exists():
            _write_image(image)
        with self.cluster.client() as client:
            for _ in range(5):
                files = [("images", ("image.png", image.read_bytes(), "image/png"))]
                client.request("POST", f"/v1/adapters/{workload.adapter}/predict", files=files)
                self.done["predictions"] += 1

    def _restart(self) -> None:
        """One process, as a new version would be rolled out; never the first of its service."""
        part = self._random.choice([part for name, part in self.cluster.parts.items() if not name.endswith("-1")])
        stop([part], patience_s=20)
        part.start()
        self.done["restarts"] += 1

    def _delete_all(self) -> None:
        wait_until(lambda: self.cluster.look_after() or self.cluster.is_ready(), 60, "every part is there again")
        with self.cluster.client() as client:
            for kind in ("jobs", "adapters", "datasets"):
                # What was deleted shifts the pages: the first one is read until it is empty.
                while page := [row["id"] for row in client.get(f"/v1/{kind}", limit=100)["data"]]:
                    for row_id in page:
                        _delete(client, f"/v1/{kind}/{row_id}")
                        self.done[f"{kind} deleted"] += 1

    def _sample(self) -> Sample:
        memory, files = {}, {}
        for name, part in self.cluster.parts.items():
            memory[name], files[name] = _memory_mb(part), _open_files(part)
        with self.cluster.database() as database, database.session() as session:
            rows = {
                name: int(session.execute(select(func.count()).select_from(table)).scalar_one())
                for name, table in sorted(Base.metadata.tables.items())
            }
        blobs = []
        for path in (self.cluster.folder / "blobs").rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # the sweeper deletes meanwhile
                blobs += [path.stat().st_size] if path.is_file() else []
        return Sample(
            minute=(time.monotonic() - self._started) / 60,
            memory_mb=memory,
            files=files,
            processes=len(self.cluster.processes()),
            connections=connections(self.cluster),
            rows=rows,
            blob_files=len(blobs),
            blob_mb=sum(blobs) / 1e6,
        )

    def uncollected(self) -> list[str]:
        """What is still there of uploads and blobs after a collection, everything having been deleted."""
        time.sleep(EXPIRED_S)
        sweeper = self.cluster.parts["sweeper-2"]
        stop([sweeper], patience_s=20)
        sweeper.start()  # collects in its first round, then every ten minutes
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self._left(), 60, "everything is collected")
        self.samples.append(self._sample())
        return [f"not collected: {n} {what}" for what, n in self._left().items()]

    def _left(self) -> dict[str, int]:
        sample = self._sample()
        rows = {f"rows of {name}": n for name, n in sample.rows.items() if name not in (*HISTORY, *KEPT)}
        return {what: n for what, n in (rows | {"blob files": sample.blob_files}).items() if n}

    def growth(self) -> list[str]:
        """What of processes is larger in the last quarter than in the second."""
        quarter = len(self.samples) // 4
        if quarter == 0:
            return ["too few rounds to tell growth"]
        early, late = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        found = []
        for name in self.cluster.parts:
            if not name.endswith("-1"):
                continue
            for what, most in (("memory_mb", MEMORY_MB), ("files", FILES)):
                before, after = (statistics.median(getattr(s, what)[name] for s in part) for part in (early, late))
                found += [f"{what} of {name}: {before:.0f}, later {after:.0f}"] if after - before > most else []
        counts: tuple[tuple[str, Callable[[Sample], int], int], ...] = (
            # Every connection is a process of the database's: one more of a pool is no leak of processes.
            ("processes beside the connections'", lambda sample: sample.processes - sample.connections, 0),
            ("connections", lambda sample: sample.connections, CONNECTIONS),
        )
        for what, count, most in counts:
            before, after = (statistics.median(count(sample) for sample in part) for part in (early, late))
            found += [f"{what}: {before:.0f}, later {after:.0f}"] if after - before > most else []
        return found

    def lines(self) -> list[str]:
        """For people."""
        names = [name for name in self.cluster.parts if name.endswith("-1")]
        lines = [
            ", ".join(f"{n} {what}" for what, n in sorted(self.done.items())),
            "minute  processes  connections  blobs  " + "  ".join(names) + "   (MB / open files)",
        ]
        step = max(1, len(self.samples) // 12)
        for sample in [*self.samples[:-1:step], self.samples[-1]]:
            each = "  ".join(f"{sample.memory_mb[name]:.0f} / {sample.files[name]}" for name in names)
            lines.append(
                f"{sample.minute:6.1f}  {sample.processes:9}  {sample.connections:11}  {sample.blob_files:5}  {each}"
            )
        first, last = self.samples[0].rows, self.samples[-1].rows
        lines.append("rows after the first round, and at the end once the garbage was collected: " + ", ".join(
            f"{table} {first[table]} / {last[table]}" for table in first if last[table] or first[table]
        ))  # fmt: skip
        return lines


def _delete(client: Client, path: str) -> None:
    try:
        client.request("DELETE", path)
    except ApiError as error:
        if error.status != 404:
            raise


def _family(part: Part) -> list[psutil.Process]:
    """The part and its children: no attempt lives between rounds, so these are a worker's pool processes."""
    assert part.process is not None
    process = psutil.Process(part.process.pid)
    return [process, *process.children(recursive=True)]


def _memory_mb(part: Part) -> float:
    return sum(process.memory_full_info().uss for process in _family(part)) / 1e6


def _open_files(part: Part) -> int:
    return sum(process.num_fds() for process in _family(part))


def _write_image(path: Path) -> None:
    with zipfile.ZipFile(write_digits(path.with_suffix(".zip"), per_class=5)) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".png"))
        path.write_bytes(archive.read(name))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.soak")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rest", type=float, default=0, help="seconds between two rounds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a file for the outcome, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mr-soak-") as folder:
        uploads = Path(folder) / "uploads"
        uploads.mkdir()
        with Cluster(Path(folder) / "cluster", settings=SETTINGS, module="tests.cluster.toy_part") as cluster:
            before = describe_machine()
            soak = Soak(cluster, uploads, arguments.seed)
            end_at = time.monotonic() + 60 * arguments.minutes
            while time.monotonic() < end_at and not soak.faults:
                soak.round()
                print(soak.lines()[-2], flush=True)
                time.sleep(arguments.rest)
            load = os.getloadavg()
            uncollected = soak.uncollected()
        remaining = len(cluster.processes())
    faults = [*soak.faults, *soak.growth(), *uncollected]
    faults += [f"{remaining} processes after the stop"] if remaining else []
    lines = [
        f"python -m tests.cluster.soak {' '.join(sys.argv[1:])}",
        f"{before} at the start, {load[0]:.1f} at the end",
        "parts: " + ", ".join(cluster.parts),
        *soak.lines(),
        *([f"FAULT: {fault}" for fault in faults] or ["faults: none"]),
    ]
    print("\n".join(lines))
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
