"""The schema: the same as the models, reversible, and deaf to illegal changes of a job."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from service import schema
from service.jobs import LEGAL_CHANGES
from service.models import JOB_STATUSES, TERMINAL_STATUSES, Base
from service.session import Database


def test_up_down_up(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    assert not schema.is_at_head(database)
    schema.upgrade(empty_database_url)
    first = _catalogue(database)
    assert schema.is_at_head(database)
    schema.downgrade(empty_database_url, "base")
    assert not schema.is_at_head(database)
    assert [row for row in _catalogue(database) if "alembic_version" not in str(row)] == []
    schema.upgrade(empty_database_url)
    assert _catalogue(database) == first
    database.dispose()


def test_several_processes_may_migrate_at_once(empty_database_url: str) -> None:
    program = f"from service import schema; schema.upgrade({empty_database_url!r})"
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen([sys.executable, "-c", program], cwd=root) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]


def test_database_of_a_newer_version_is_not_at_head(database: Database) -> None:
    assert schema.is_at_head(database)
    with database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
    assert not schema.is_at_head(database)


def test_no_difference_between_models_and_schema(database: Database, empty_database_url: str) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    # Alembic compares no CHECK constraints and no conditions of indexes; the catalogue does.
    modelled = Database(empty_database_url)
    Base.metadata.create_all(modelled.engine)
    migrated = [row for row in _catalogue(database) if "alembic_version" not in str(row) and row[0] != "trigger"]
    assert migrated == _catalogue(modelled)
    modelled.dispose()


@pytest.mark.parametrize(("before", "after"), list(product(JOB_STATUSES, JOB_STATUSES)))
def test_only_legal_changes_pass(database: Database, before: str, after: str) -> None:
    with database.engine.connect() as connection, connection.begin() as transaction:
        _insert_job(connection, before)
        change = text("UPDATE jobs SET status = :after, lease_until = now() WHERE id = 'job_1'")
        if after == before or after in LEGAL_CHANGES[before]:
            connection.execute(change, {"after": after})
        else:
            with pytest.raises(IntegrityError, match=f"cannot go from {before} to {after}"):
                connection.execute(change, {"after": after})
        transaction.rollback()


def test_terminal_is_absorbing() -> None:
    assert {status for status, following in LEGAL_CHANGES.items() if not following} == set(TERMINAL_STATUSES)


@pytest.mark.parametrize("status", TERMINAL_STATUSES)
@pytest.mark.parametrize("change", ["result = '{}'", "error = '{}'", "fence = fence - 1", "event_seq = event_seq - 1"])
def test_what_an_ended_job_says_does_not_change(database: Database, status: str, change: str) -> None:
    with database.engine.connect() as connection:
        _insert_job(connection, status)
        with pytest.raises(IntegrityError):
            connection.execute(text(f"UPDATE jobs SET {change} WHERE id = 'job_1'"))


@pytest.mark.parametrize("values", [{"status": "lost"}, {"status": "running", "lease_until": None}])
def test_impossible_rows_are_refused(database: Database, values: dict[str, str | None]) -> None:
    with database.engine.connect() as connection, pytest.raises(IntegrityError):
        _insert_job(connection, **values)


def _insert_job(connection: Connection, status: str, lease_until: str | None = "now") -> None:
    connection.execute(
        text(
            "INSERT INTO jobs (id, tenant, kind, spec, queue, status, lease_until)"
            " VALUES ('job_1', 'a', 'diagnose', '{}', 'cpu', :status, :lease_until)"
        ),
        {"status": status, "lease_until": lease_until},
    )


def _catalogue(database: Database) -> list[tuple[object, ...]]:
    """Everything that the schema consists of, as PostgreSQL itself words it."""
    questions = """
        SELECT 'column', table_name, column_name, data_type || ' ' || udt_name, is_nullable, column_default
            FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT 'index', tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), '', ''
            FROM pg_trigger WHERE NOT tgisinternal
        ORDER BY 1, 2, 3
    """
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(questions))]
