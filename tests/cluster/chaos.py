"""Jobs through a cluster whose parts are killed at random: `python -m tests.cluster.chaos --jobs 100`.

Prints what was posted, what was killed, and how each job ended; fails where a job has not ended exactly once, or
something is left behind.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import redis
from sqlalchemy import text

from benchmarks.environment import describe_machine
from cli.supervision import Part
from service.models import Dataset, Event, Job, StoredAdapter
from service.session import Database
from tests.cluster.cluster import Cluster
from tests.cluster.workload import Posted, Workload
from tests.processes import wait_until

_TERMINAL = ("succeeded", "failed", "cancelled")
_LEAVES_ADAPTER = ("reprogram", "toy")
# An attempt that is lost does not count against the job here: what is asked is that it ends, however often it is hit.
SETTINGS = {"MR_MAX_ATTEMPTS": "50", "MR_WEBHOOK_TIMEOUT_S": "2"}


@dataclass
class Chaos:
    """Strikes at random, by its seed; what it stopped or killed runs again a moment later."""

    cluster: Cluster
    seed: int
    pace_s: float
    strikes: Counter[str] = field(default_factory=Counter)
    _strike_at: float = 0.0
    _due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._kinds: dict[str, tuple[int, Callable[[], bool]]] = {
            "worker SIGKILL": (2, lambda: self._kill(self._one_of("cpu-worker"))),
            "worker SIGSTOP": (2, lambda: self._pause(self._process(self._one_of("cpu-worker")))),
            "worker's pool process SIGKILL": (1, self._kill_pool_process),
            "io worker SIGKILL": (1, lambda: self._kill(self._one_of("io-worker"))),
            "attempt SIGKILL": (4, lambda: self._signal_attempt(psutil.Process.kill)),
            "attempt SIGSTOP": (2, lambda: self._signal_attempt(self._pause)),
            "sweeper SIGKILL": (2, lambda: self._kill(self._one_of("sweeper"))),
            "sweeper SIGSTOP": (1, lambda: self._pause(self._process(self._one_of("sweeper")))),
            "gateway SIGKILL": (1, lambda: self._kill(self._one_of("gateway"))),
            "redis SIGKILL": (1, lambda: self._kill(self.cluster.redis)),
            "redis SIGSTOP": (1, lambda: self._pause(self._process(self.cluster.redis))),
            "redis wiped": (1, self._wipe_redis),
        }

    def tick(self) -> None:
        """Strike if it is time, and undo what is due."""
        now = time.monotonic()
        for at, undo in [entry for entry in self._due if entry[0] <= now]:
            self._due.remove((at, undo))
            undo()
        if now >= self._strike_at:
            self._strike_at = now + self._random.uniform(0.3, 1.7) * self.pace_s
            name = self._random.choices(list(self._kinds), [weight for weight, _ in self._kinds.values()])[0]
            if self._kinds[name][1]():
                self.strikes[name] += 1

    def calm(self) -> None:
        """Undo everything at once."""
        for _, undo in self._due:
            undo()
        self._due.clear()

    def _later(self, least_s: float, most_s: float, undo: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + self._random.uniform(least_s, most_s), undo))

    def _one_of(self, service: str) -> Part:
        return self._random.choice(self.cluster.of(service))

    @staticmethod
    def _process(part: Part) -> psutil.Process | None:
        return psutil.Process(part.process.pid) if part.process is not None and part.is_alive else None

    def _kill(self, part: Part) -> bool:
        """The process alone, as a crash does; its children have to notice by themselves."""
        if part.process is None or not part.is_alive:
            return False
        part.process.kill()
        part.process.wait()
        self._later(0.2, 3, lambda: None if part.is_alive else part.start())
        return True

    def _pause(self, process: psutil.Process | None) -> bool:
        """For less than a lease, or for more."""
        if process is None:
            return False

        def go_on() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

        process.suspend()
        self._later(1, 10, go_on)
        return True

    def _signal_attempt(self, strike: Callable[[psutil.Process], Any]) -> bool:
        found = self.cluster.attempts()
        if not found:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            strike(self._random.choice(found))
        return True

    def _kill_pool_process(self) -> bool:
        worker = self._process(self._one_of("cpu-worker"))
        children = worker.children() if worker is not None else []
        for child in children[:1]:
            child.kill()
        return bool(children)

    def _wipe_redis(self) -> bool:
        try:
            with redis.Redis.from_url(self.cluster.redis_url, socket_timeout=2) as client:
                client.flushall()
        except redis.RedisError:
            return False
        return True


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    wall_s: float
    strikes: Counter[str]
    ends: Counter[tuple[str, str]]
    attempts: int
    attempts_ended: Counter[str]
    doubled: int
    retried: int
    connections: tuple[int, int]
    faults: list[str]

    def lines(self) -> list[str]:
        """For people."""
        kinds = sorted({kind for kind, _ in self.ends})
        ended = [", ".join(f"{n} {end}" for (of, end), n in sorted(self.ends.items()) if of == kind) for kind in kinds]
        return [
            f"jobs ended: {sum(self.ends.values())} in {self.wall_s:.0f} s",
            *(f"  {kind}: {told}" for kind, told in zip(kinds, ended, strict=True)),
            f"posted twice with one Idempotency-Key: {self.doubled}; retried after a cancel: {self.retried}",
            f"attempts: {self.attempts}, of which "
            + ", ".join(f"{n} {outcome}" for outcome, n in self.attempts_ended.most_common()),
            f"strikes: {sum(self.strikes.values())}",
            *(f"  {name}: {n}" for name, n in sorted(self.strikes.items())),
            f"connections to PostgreSQL: {self.connections[0]} before, {self.connections[1]} after",
            *([f"FAULT: {fault}" for fault in self.faults] or ["faults: none"]),
        ]


def run(
    cluster: Cluster, folder: Path, *, n_jobs: int, seed: int, pace_s: float, strike_s: float, end_s: float
) -> Outcome:
    """Post the jobs and strike every `pace_s` or so until all have ended, at most for `strike_s`; then look at all."""
    workload = Workload(cluster, folder, n_jobs, seed)
    chaos = Chaos(cluster, seed, pace_s)
    try:
        workload.prepare()
        idle = connections(cluster)
        started = time.monotonic()
        with cluster.database() as database:
            while not (workload.is_posted and not unfinished(database)):
                elapsed = time.monotonic() - started
                workload.tick()
                if elapsed < strike_s:
                    chaos.tick()
                else:
                    chaos.calm()
                cluster.look_after()
                assert elapsed < strike_s + end_s, f"not ended: {unfinished(database)}"
                time.sleep(0.1)
            chaos.calm()
            wall_s = time.monotonic() - started
            wait_until(lambda: cluster.look_after() or cluster.consuming(), 60, "every worker consumes again")
            faults = faults_in_rows(database, workload.posted)
            with database.session() as session:
                rows = session.query(Job).all()
        faults += left_behind(cluster, idle)
        return Outcome(
            wall_s=wall_s,
            strikes=chaos.strikes,
            ends=Counter((row.kind, row.status) for row in rows),
            attempts=sum(len(row.attempts) for row in rows),
            attempts_ended=Counter(attempt.get("outcome", "open") for row in rows for attempt in row.attempts),
            doubled=workload.doubled,
            retried=workload.retried,
            connections=(idle, connections(cluster)),
            faults=faults,
        )
    finally:
        chaos.calm()
        workload.close()


def unfinished(database: Database) -> list[tuple[str, str, str]]:
    with database.session() as session:
        rows = session.query(Job.id, Job.kind, Job.status).filter(Job.status.not_in(_TERMINAL)).all()
    return [tuple(row) for row in rows]


def faults_in_rows(database: Database, posted: list[Posted]) -> list[str]:
    """Where the rows do not tell of jobs that each ended exactly once."""
    faults = []
    with database.session() as session:
        rows = {row.id: row for row in session.query(Job).all()}
        events: dict[str, list[Event]] = {job_id: [] for job_id in rows}
        for event in session.query(Event).order_by(Event.seq):
            events[event.job_id].append(event)
        adapters = Counter(row.job_id for row in session.query(StoredAdapter).all())
        undecided = session.query(Dataset).filter(Dataset.status != "ready").count()
    faults += [f"{undecided} datasets are not ready"] if undecided else []
    faults += [f"{job.id} is lost" for job in posted if job.id not in rows]
    wanted = {job.id: job for job in posted}
    for job_id, row in rows.items():
        ends = [event.data["status"] for event in events[job_id] if event.data.get("status") in _TERMINAL]
        if ends != [row.status]:
            faults.append(f"{job_id} is {row.status}, its events tell of {ends}")
        if [event.seq for event in events[job_id]] != list(range(1, len(events[job_id]) + 1)):
            faults.append(f"{job_id} has gaps between its events")
        if row.lease_owner is not None or row.lease_until is not None:
            faults.append(f"{job_id} has ended under a lease")
        if any("outcome" not in attempt for attempt in row.attempts):
            faults.append(f"{job_id} has an attempt without an end")
        if adapters[job_id] != int(row.status == "succeeded" and row.kind in _LEAVES_ADAPTER):
            faults.append(f"{job_id} ({row.kind}, {row.status}) left {adapters[job_id]} adapters")
        is_cancelled = job_id in wanted and wanted[job_id].is_cancelled
        if row.status != ("cancelled" if is_cancelled else "succeeded"):
            faults.append(f"{job_id} ({row.kind}) is {row.status}: {row.error}")
    return faults


def left_behind(cluster: Cluster, idle: int) -> list[str]:
    """Processes, folders and connections that outlive the jobs; what ends within seconds is no fault."""
    most = idle + len(cluster.parts)  # a pool may keep one more than it had; a leak grows with the jobs
    checks = {
        "attempts still run": lambda: len(cluster.attempts()) == 0 and strays(cluster) == 0,
        "scratch folders are left": lambda: cluster.scratch() == [],
        f"more than {most} connections are open": lambda: connections(cluster) <= most,
    }
    faults = []
    for fault, is_well in checks.items():
        try:
            wait_until(is_well, 20, fault)
        except AssertionError as error:
            faults.append(str(error))
    return faults


def strays(cluster: Cluster) -> int:
    """Attempts that live without the worker that started them."""
    own = {process.pid for process in cluster.attempts()}
    found = 0
    for process in cluster.processes():
        with contextlib.suppress(psutil.Error):
            found += process.pid not in own and any("attempt" in word for word in process.cmdline())
    return found


def connections(cluster: Cluster) -> int:
    """Of clients to the cluster's database, this question's own left out."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with cluster.database() as database, database.session() as session:
        return int(session.execute(text(query)).scalar_one())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.chaos")
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pace", type=float, default=4, help="seconds between two strikes, in the mean")
    parser.add_argument("--strike", type=float, default=900, help="no strikes after so many seconds")
    parser.add_argument("--output", type=Path, help="a file for the outcome, too")
    parser.add_argument("--keep", type=Path, help="keep the cluster's folder here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mr-chaos-") as folder:
        data_dir, uploads = arguments.keep or Path(folder) / "cluster", Path(folder) / "uploads"
        uploads.mkdir()
        with Cluster(data_dir, settings=SETTINGS, module="tests.cluster.toy_part") as cluster:
            before = describe_machine()
            outcome = run(
                cluster, uploads, n_jobs=arguments.jobs, seed=arguments.seed, pace_s=arguments.pace,
                strike_s=arguments.strike, end_s=300,
            )  # fmt: skip
            load = os.getloadavg()
        remaining = len(cluster.processes())
    lines = [
        f"python -m tests.cluster.chaos --jobs {arguments.jobs} --seed {arguments.seed} --pace {arguments.pace:g}",
        f"{before} at the start, {load[0]:.1f} at the end",
        "parts: " + ", ".join(cluster.parts),
        *outcome.lines(),
        f"processes after the stop: {remaining}",
    ]
    print("\n".join(lines))
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines) + "\n")
    return 1 if outcome.faults or remaining else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
