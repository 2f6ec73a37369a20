"""The study of a search: Optuna's own tables, in a schema of their own of the service's database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, ProgrammingError

from mr_core.studies import Studies
from service.errors import ConfigurationError, DatabaseUnavailable
from service.session import Database
from service.studies import SCHEMA

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

_LOCK = 7_264_002  # any number, as long as it is the same in every process, and not that of our migrations


class StoredStudies(Studies):
    """That of one job, by its id."""

    def __init__(self, database: Database, job_id: str) -> None:
        self._database = database
        self._job_id = job_id

    @contextmanager
    def open(self) -> Iterator[optuna.Study]:
        from optuna.exceptions import StorageInternalError

        storage = None
        try:
            storage = open_storage(self._database)
            yield self._study(storage, self._job_id)
        except (OperationalError, InterfaceError, InternalError, StorageInternalError) as error:
            raise DatabaseUnavailable(f"the database does not answer: {error.__cause__ or error}") from error
        finally:
            if storage is not None:
                storage.remove_session()
                storage.engine.dispose()


def open_storage(database: Database) -> RDBStorage:
    """Optuna's storage; its schema and tables are made, or brought to its version, by one process at a time."""
    if _has_tables(database):
        storage = _storage(database, makes_tables=False)
        if storage.get_current_version() == storage.get_head_version():
            return storage
        storage.engine.dispose()
    with database.engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '90s'"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        _make_schema(database)
        storage = _storage(database, makes_tables=True)
        found = storage.get_current_version()
        if found not in storage.get_all_versions():
            storage.engine.dispose()
            raise ConfigurationError(f"the searches' schema is of a newer Optuna: {found}")
        if found != storage.get_head_version():
            storage.upgrade()
    return storage


def _storage(database: Database, *, makes_tables: bool) -> RDBStorage:
    from optuna.storages import RDBStorage

    # In the URL, since Optuna's migrations are given nothing else.
    options = f"-csearch_path={SCHEMA} -clock_timeout=10s -cidle_in_transaction_session_timeout=30s"
    url = database.url.update_query_dict({"options": options})
    return RDBStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs={"pool_size": 1, "pool_pre_ping": True},
        skip_compatibility_check=True,
        skip_table_creation=not makes_tables,
    )


def _has_tables(database: Database) -> bool:
    """Whether they were made to the end: Optuna notes the version last."""
    with database.engine.connect() as connection:
        name = connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"{SCHEMA}.alembic_version"})
        return name is not None and bool(connection.scalar(text(f"SELECT count(*) FROM {SCHEMA}.alembic_version")))  # noqa: S608


def _make_schema(database: Database) -> None:
    try:
        with database.engine.begin() as connection:
            if connection.execute(text("SELECT to_regnamespace(:name)"), {"name": SCHEMA}).scalar() is None:
                connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    except ProgrammingError as error:
        raise ConfigurationError(
            f"a search keeps its study in the schema {SCHEMA}, which cannot be made: {error.orig}; make it once with "
            f"CREATE SCHEMA {SCHEMA} AUTHORIZATION the service's role"
        ) from error
