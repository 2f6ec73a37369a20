"""Studies go with their jobs. That the real tables are found is tested with the worker, which has Optuna."""

from sqlalchemy import text

from service import jobs, studies
from service.session import Database
from tests.service.acting import submit


def test_without_any_search_there_is_nothing_to_forget(database: Database) -> None:
    with database.session() as session:
        assert studies.forget_gone(session) == 0
        studies.forget(session, "job_1")
        assert session.scalar(text("SELECT to_regnamespace('optuna')")) is None


def test_whatever_belongs_to_a_study_goes(database: Database) -> None:
    kept, deleted = submit(database), submit(database)
    with database.session() as session:
        for statement in (
            "CREATE SCHEMA optuna",
            "CREATE TABLE optuna.studies (study_id int PRIMARY KEY, study_name text UNIQUE)",
            "CREATE TABLE optuna.trials (trial_id int PRIMARY KEY, study_id int REFERENCES optuna.studies)",
            "CREATE TABLE optuna.later (trial_id int REFERENCES optuna.trials)",
            "CREATE TABLE optuna.attributes (study_id int REFERENCES optuna.studies)",
            "INSERT INTO optuna.trials (trial_id) VALUES (4)",
        ):
            session.execute(text(statement))
        for n, name in enumerate((kept, deleted, "job_gone", "their own")):
            session.execute(text("INSERT INTO optuna.studies VALUES (:n, :name)"), {"n": n, "name": name})
            for statement in ("trials VALUES (:n, :n)", "later VALUES (:n)", "attributes VALUES (:n)"):
                session.execute(text(f"INSERT INTO optuna.{statement}"), {"n": n})
    with database.session() as session:
        jobs.request_cancel(session, "a", deleted)
        jobs.delete(session, "a", deleted)
    assert _left(database) == ([kept, "job_gone", "their own"], 4, 3, 3)
    with database.session() as session:
        assert studies.forget_gone(session) == 1
    assert _left(database) == ([kept, "their own"], 3, 2, 2)


def _left(database: Database) -> tuple[list[str], int, int, int]:
    with database.session() as session:
        names = session.scalars(text("SELECT study_name FROM optuna.studies ORDER BY study_id")).all()
        counts = [
            session.scalar(text(f"SELECT count(*) FROM optuna.{name}")) for name in ("trials", "later", "attributes")
        ]
    return list(names), *counts
