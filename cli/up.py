"""`mr up`: the whole service on one machine, to keep."""

import argparse
import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from types import FrameType

import httpx

from cli.errors import CommandError, Exit
from cli.output import say
from cli.supervision import Part, stop
from service import predictor_launch
from service.embedded import EmbeddedPostgres
from service.settings import Settings, load_settings

_POLL_S = 0.15
_READY_S = 90.0


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, help="everything it keeps is here (default: MR_DATA_DIR or ./mr-data)")
    parser.add_argument("--host", help="address to listen on (default: MR_HOST or 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on; 0 takes a free one (default: MR_PORT or 8000)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    settings = load_settings(data_dir=arguments.data_dir, host=arguments.host, port=arguments.port)
    _refuse_open_door(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    stopping = _StopSignal()
    with _locked(settings.data_dir) as lock, _listening(settings) as listener:
        service = _Service(settings, listener, lock)
        try:
            service.start(stopping)
            while not stopping.asked:
                service.look_after()
                time.sleep(_POLL_S)
        finally:
            say("stopping")
            service.stop()
    return Exit.DONE


class _Service:
    """Every part, in the order in which they start and the reverse in which they stop."""

    def __init__(self, settings: Settings, listener: socket.socket, lock: int) -> None:
        self._settings, self._data_dir = settings, settings.data_dir
        self._address = _address(listener)
        self._lock = lock
        self._variables = {"MR_DATA_DIR": str(self._data_dir), "MR_PREDICTOR_TOKEN": secrets.token_urlsafe(32)}
        if _is_loopback(settings.host) and "allow_loopback_urls" not in settings.model_fields_set:
            self._variables["MR_ALLOW_LOOPBACK_URLS"] = "true"  # only this machine asks, so this machine may be called
        if settings.predictor_token is not None:
            self._variables["MR_PREDICTOR_TOKEN"] = settings.predictor_token.get_secret_value()
        self._database = self._part("postgres", "postgres")
        gateway_arguments = ("gateway", "--fd", str(listener.fileno()))
        self._gateway = self._part("gateway", *gateway_arguments, inherited=(listener.fileno(),))
        self._workers = [self._part(f"{queue} worker", "worker", "--queue", queue, "--device", device)
                         for queue, device in _queues()]  # fmt: skip
        self._sweeper = self._part("sweeper", "sweeper")
        self._predictor = self._part("predictor", "predictor", prepare=self._predictor_address)

    def start(self, stopping: "_StopSignal") -> None:
        """Start all but the predictor, and say so once the service is ready."""
        for leftover in (predictor_launch.wanted(self._data_dir), predictor_launch.address(self._data_dir)):
            leftover.unlink(missing_ok=True)
        url = self._settings.database_url or self._start_database(stopping)
        if stopping.asked:
            return
        self._variables["MR_DATABASE_URL"] = url
        from service.schema import upgrade

        upgrade(url)
        key = _keep_key(url, self._data_dir / "api-key")
        _write(self._data_dir / "address", self._address, mode=0o644)
        print(f"address  {self._address}\nkey      {key}\ndata     {self._data_dir} (logs in {self._logs})", flush=True)
        for part in (self._sweeper, *self._workers, self._gateway):
            part.start()
        self._wait_until_ready(stopping)

    def look_after(self) -> None:
        """One round: restart what has ended, start the predictor once somebody wants it."""
        for part in (self._database, self._sweeper, *self._workers, self._gateway, self._predictor):
            part.look_after()
        wanted = predictor_launch.wanted(self._data_dir)
        if self._predictor.process is None and wanted.exists():
            self._predictor.start()

    def stop(self) -> None:
        """Requests first, then what computes, then the database."""
        stop([self._gateway], patience_s=8)
        stop([*self._workers, self._predictor, self._sweeper], patience_s=20)
        stop([self._database], patience_s=30)
        predictor_launch.address(self._data_dir).unlink(missing_ok=True)
        (self._data_dir / "address").unlink(missing_ok=True)

    @property
    def _logs(self) -> Path:
        return self._data_dir / "logs"

    def _part(self, name: str, *arguments: str, inherited: tuple[int, ...] = (), **options: object) -> Part:
        # Every part holds the lock too: after a kill -9 the next `mr up` waits until the last of them has stopped.
        log = self._logs / f"{name.replace(' ', '-')}.log"
        return Part(name, arguments, log, self._variables, inherited=(self._lock, *inherited), **options)  # type: ignore[arg-type]

    def _start_database(self, stopping: "_StopSignal") -> str:
        server = EmbeddedPostgres(self._data_dir)
        self._database.start()
        while (url := server.running_url()) is None and not stopping.asked:
            if not self._database.is_alive:
                raise CommandError(f"the embedded database does not start: {self._database.last_words()}", Exit.FAILED)
            time.sleep(0.05)
        return url or ""

    def _wait_until_ready(self, stopping: "_StopSignal") -> None:
        give_up_at = time.monotonic() + _READY_S
        late = False
        while not stopping.asked:
            self.look_after()
            missing = _missing(self._address)
            if not missing:
                print("ready", flush=True)
                return
            if time.monotonic() > give_up_at and not late:
                late = True
                say(f"not ready after {_READY_S:.0f} s: {missing}; still trying (logs in {self._logs})")
            time.sleep(_POLL_S)

    def _predictor_address(self) -> Mapping[str, str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        _write(predictor_launch.address(self._data_dir), f"http://127.0.0.1:{port}", mode=0o644)
        return {"MR_PREDICTOR_HOST": "127.0.0.1", "MR_PREDICTOR_PORT": str(port)}


class _StopSignal:
    """Set by SIGINT, SIGTERM and SIGHUP; a second one while stopping ends this process, and the kernel its parts."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[int]:
    """Hold the data folder; parts of a killed `mr up` are waited for, a living one is not disturbed."""
    path = predictor_launch.lock(data_dir)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        give_up_at = time.monotonic() + 60
        while not _lock(descriptor):
            holder = path.read_text(encoding="ascii").strip()
            if _is_up(holder) or time.monotonic() > give_up_at:
                raise CommandError(f"{data_dir} is in use by another `mr up` (process {holder or 'unknown'})")
            time.sleep(0.1)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_up(pid: str) -> bool:
    """Whether the process that wrote the lock lives; one that has written nothing yet counts for a moment as dead."""
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{pid}/stat")
    return (
        not status.exists() or status.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] != "Z"
    )


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The gateway's socket, held here so that a gateway that restarts loses no connection."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(512)
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise CommandError(f"cannot listen on {where}: {error.strerror}; choose another with --port") from error
        yield listener


def _refuse_open_door(settings: Settings) -> None:
    """Elsewhere than on this machine, only with a key that its owner has seen."""
    if not _is_loopback(settings.host) and not (settings.data_dir / "api-key").exists():
        raise CommandError(
            f"refusing to listen on {settings.host} before there is an API key: "
            f"run `mr up --data-dir {settings.data_dir}` once, which makes {settings.data_dir / 'api-key'}"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the names of all addresses, not a bind
    host = everywhere.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _keep_key(url: str, path: Path) -> str:
    """The key in the file if it opens this database, else a new one."""
    from service import keys
    from service.errors import Unauthenticated
    from service.session import Database

    database = Database(url)
    try:
        with contextlib.suppress(FileNotFoundError, Unauthenticated):
            kept = path.read_text(encoding="ascii").strip()
            with database.session() as session:
                keys.authenticate(session, kept)
            return kept
        with database.session() as session:
            _, secret = keys.create_key(
                session, tenant="default", name="mr up", scopes=["read", "write", "admin"], expires_at=None
            )
        _write(path, secret, mode=0o600)
        return secret
    finally:
        database.dispose()


def _write(path: Path, text: str, *, mode: int) -> None:
    """Whole or not at all, and never readable by more than `mode` says."""
    partial = path.with_name(path.name + ".new")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def _missing(address: str) -> str:
    """What /readyz misses; nothing when the service is ready."""
    try:
        response = httpx.get(f"{address}/readyz", timeout=5, trust_env=False)
    except httpx.HTTPError as error:
        return str(error) or type(error).__name__
    return "" if response.status_code == httpx.codes.OK else response.text[:300]


def _queues() -> list[tuple[str, str]]:
    queues = [("io", "cpu"), ("cpu", "cpu")]
    return [*queues, ("gpu", "cuda")] if _has_gpu() else queues


def _has_gpu() -> bool:
    """Asked of torch in a process of its own, and only where the driver has a device: the import takes seconds."""
    if not Path("/dev/nvidiactl").exists():
        return False
    question = [sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
    return subprocess.run(question, capture_output=True, check=False).returncode == 0
