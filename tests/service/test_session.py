"""Transactions, and what a database says becomes errors of the service."""

import pytest
from sqlalchemy import text

from service.errors import ConfigurationError, DatabaseUnavailable, InvalidValue
from service.session import Database
from tests.service.acting import read, submit


def test_other_databases_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="sqlite"):
        Database("sqlite://")


def test_database_that_is_away_is_a_transient_error() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable):
        database.wait_ready(timeout_s=0.3)


def test_password_is_in_the_dsn_only() -> None:
    database = Database("postgresql://user:hush@host/name")
    assert "hush" in database.dsn
    assert "hush" not in str(database.url)


@pytest.mark.parametrize("metadata", [{"a": "\0"}, {"\0": "a"}])
def test_nul_is_an_invalid_value(database: Database, metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidValue):
        submit(database, metadata=metadata)


def test_connections_that_were_cut_are_replaced(database: Database) -> None:
    job_id = submit(database)
    with database.session() as session:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        session.execute(text(f"{others} AND datname = current_database()"))
        killed = session.connection().connection.dbapi_connection
    admin = Database(database.url.render_as_string(hide_password=False))
    with admin.session() as session:
        session.execute(text(f"{others} AND datname = current_database()"))
    admin.dispose()
    assert killed is not None
    assert read(database, job_id).status == "queued"


def test_a_stopped_process_does_not_hold_a_row_for_ever(database: Database) -> None:
    with database.session() as session:
        limits = [session.execute(text(f"SHOW {name}")).scalar() for name in
                  ("idle_in_transaction_session_timeout", "lock_timeout")]  # fmt: skip
    assert limits == ["30s", "10s"]
