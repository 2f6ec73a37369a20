"""Optuna's schema beside ours: made once, deaf to our migrations as ours are to it, emptied with the jobs."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from service import schema, studies
from service.errors import ConfigurationError, DatabaseUnavailable
from service.models import Base
from service.session import Database
from worker.studies import StoredStudies, open_storage

pytestmark = pytest.mark.integration


@pytest.fixture
def storage(database):
    storage = open_storage(database)
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def tables(database, name):
    with database.session() as session:
        found = text("SELECT table_name FROM information_schema.tables WHERE table_schema = :name ORDER BY 1")
        return list(session.scalars(found, {"name": name}))


def test_its_tables_and_version_are_in_a_schema_of_their_own(database):
    before = tables(database, "public")
    with StoredStudies(database, "job_1").open():
        pass
    assert tables(database, "public") == before
    assert {"studies", "trials", "alembic_version", "version_info"} <= set(tables(database, "optuna"))
    assert schema.is_at_head(database)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_our_migrations_leave_it_alone(database, database_url, storage):
    before = storage.get_current_version()
    schema.downgrade(database_url, "base")
    assert storage.get_current_version() == before
    assert "studies" in tables(database, "optuna")
    schema.upgrade(database_url)
    assert schema.is_at_head(database)
    assert storage.get_current_version() == before == storage.get_head_version()


def test_its_own_migrations_run_in_its_schema(database, storage):
    """Taken back by the newest, v3.2.0.a, which makes an index, the schema is brought up where it is next opened."""
    ours = tables(database, "public")
    with database.session() as session:
        session.execute(text("UPDATE optuna.alembic_version SET version_num = 'v3.0.0.d'"))
        session.execute(text("DROP INDEX IF EXISTS optuna.trials_study_id_key"))
    open_storage(database).engine.dispose()
    assert storage.get_current_version() == storage.get_head_version()
    with database.session() as session:
        indexes = session.scalars(text("SELECT schemaname FROM pg_indexes WHERE indexname = 'trials_study_id_key'"))
        assert indexes.all() == ["optuna"]
    assert tables(database, "public") == ours
    assert schema.is_at_head(database)


def test_a_newer_one_is_refused(database, storage):
    with database.session() as session:
        session.execute(text("UPDATE optuna.alembic_version SET version_num = 'v9'"))
    with pytest.raises(ConfigurationError, match="newer Optuna: v9"):
        open_storage(database)


def test_several_processes_may_make_it_at_once(database_url):
    program = (
        "from service.session import Database; from worker.studies import open_storage; "
        f"database = Database({database_url!r}); open_storage(database).engine.dispose()"
    )
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen([sys.executable, "-c", program], cwd=root) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]


def test_a_study_is_kept_by_its_job(database):
    for attempt in range(2):
        with StoredStudies(database, "job_1").open() as study:
            assert len(study.get_trials()) == attempt
            trial = study.ask()
            trial.suggest_float("rate", 0.1, 1)
            study.tell(trial, 0.5)
    with StoredStudies(database, "job_2").open() as other:
        assert other.get_trials() == []


def test_a_study_goes_with_everything_in_it(database):
    with StoredStudies(database, "job_1").open() as study:
        study.set_user_attr("a", 1)
        trial = study.ask()
        trial.suggest_float("rate", 0.1, 1)
        trial.report(0.4, 1)
        trial.set_user_attr("b", 2)
        study.tell(trial, 0.5)
    with database.session() as session:
        studies.forget(session, "job_1")
    with database.session() as session:
        for name in tables(database, "optuna"):
            if name not in ("alembic_version", "version_info"):
                assert session.scalar(text(f"SELECT count(*) FROM optuna.{name}")) == 0, name


def test_a_database_that_is_away_is_a_transient_error(database):
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable), StoredStudies(away, "job_1").open():
        pass
    with pytest.raises(DatabaseUnavailable), StoredStudies(database, "job_1").open():
        raise OperationalError("SELECT 1", {}, Exception("gone"))
