"""The embedded PostgreSQL: quick to start again, and whole again after the worst end."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from service.embedded import EmbeddedPostgres
from service.errors import ConfigurationError, DatabaseUnavailable
from service.session import Database, open_database
from service.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    # Not pytest's folder: another pytest that starts meanwhile closes that to the account that the server runs as.
    with tempfile.TemporaryDirectory(prefix="mr 'tests' ") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def server(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir)
    yield server
    server.stop()


def pid_of(server: EmbeddedPostgres) -> int:
    pid = server._server_pid()
    assert pid is not None
    return pid


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    database = Database(url)
    with database.engine.begin() as connection:
        result = connection.execute(text(statement))
        rows = [tuple(row) for row in result] if result.returns_rows else []
    database.dispose()
    return rows


def test_survives_kill_9_with_all_that_was_committed(server: EmbeddedPostgres) -> None:
    url = server.start()
    assert server.start() == url, "starting a running server changes nothing"
    execute(url, "CREATE TABLE kept (n int)")
    execute(url, "INSERT INTO kept SELECT generate_series(1, 1000)")
    killed = pid_of(server)
    os.kill(killed, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(killed)] if psutil.pid_exists(killed) else [], timeout=5)
    assert server.running_url() is None
    assert (server._files / "postmaster.pid").exists(), "the stale file that a crash leaves"
    url = server.start()
    assert execute(url, "SELECT count(*) FROM kept") == [(1000,)]


@pytest.mark.parametrize("lock", ["postmaster.pid", ".s.PGSQL.5432.lock"])
def test_pid_that_now_belongs_to_another_program_does_not_matter(server: EmbeddedPostgres, lock: str) -> None:
    """Nor one of a killed server that nobody has reaped yet."""
    server.start()
    stale = (server._files if lock == "postmaster.pid" else server._socket_dir()) / lock
    content = stale.read_text()
    server.stop()
    stale.write_text(content.replace(content.splitlines()[0], str(os.getpid()), 1))
    assert server.running_url() is None
    assert execute(server.start(), "SELECT 1") == [(1,)]


def test_creation_that_was_cut_off_is_begun_again_and_a_long_path_gets_a_short_socket() -> None:
    with tempfile.TemporaryDirectory(prefix="mr-" + 100 * "x") as folder:
        server = EmbeddedPostgres(Path(folder))
        half = server._files.with_name("postgres.new")
        half.mkdir()
        (half / "PG_VERSION").write_text("18\n")
        try:
            assert execute(server.start(), "SELECT 1") == [(1,)]
            assert server._socket_dir().stat().st_mode & 0o777 == 0o700
        finally:
            server.stop()


def test_failure_to_start_is_told_at_once(data_dir: Path, server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    broken = EmbeddedPostgres(data_dir, configuration={"no_such_setting": "1"})
    started_at = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match=r"postgres\.log"):
        broken.start()
    assert time.monotonic() - started_at < 20


def test_files_of_another_version_are_refused(tmp_path: Path) -> None:
    files = tmp_path / "postgres"
    files.mkdir()
    (files / "PG_VERSION").write_text("12\n")
    with pytest.raises(ConfigurationError, match="PostgreSQL 12"):
        EmbeddedPostgres(tmp_path).start()


def test_other_parts_find_the_running_server(
    server: EmbeddedPostgres, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MR_DATABASE_URL", raising=False)
    settings = Settings(data_dir=data_dir)
    server.start()
    database = open_database(settings)
    database.wait_ready(5)
    database.dispose()
    server.stop()
    with pytest.raises(ConfigurationError, match="mr up"):
        open_database(settings)
    started_at = time.monotonic()
    server.stop()
    assert time.monotonic() - started_at < 1, "stopping what does not run is nothing"
