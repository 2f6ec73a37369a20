"""What searches have left in Optuna's schema. Its tables are Optuna's; workers write to them, through it alone."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import column, delete, func, select, table
from sqlalchemy.orm import Session

from service.models import Job

SCHEMA: Final = "optuna"

_studies = table("studies", column("study_id"), column("study_name"), schema=SCHEMA)
_trials = table("trials", column("trial_id"), column("study_id"), schema=SCHEMA)
_columns = table(
    "columns", column("table_schema"), column("table_name"), column("column_name"), schema="information_schema"
)


def forget(session: Session, job_id: str) -> None:
    """Delete the study of a job."""
    if _is_there(session):
        _delete(session, session.scalars(select(_studies.c.study_id).where(_studies.c.study_name == job_id)).all())


def forget_gone(session: Session) -> int:
    """Delete the studies of jobs that are there no more, such as a late attempt may have left; how many."""
    if not _is_there(session):
        return 0
    name = _studies.c.study_name
    has_job = select(Job.id).where(Job.id == name).exists()
    is_ours = name.startswith("job_", autoescape=True)  # somebody else's studies may be in a schema of this name
    ids = session.scalars(select(_studies.c.study_id).where(is_ours, ~has_job)).all()
    _delete(session, ids)
    return len(ids)


def _is_there(session: Session) -> bool:
    """Whether any search was ever run: the first makes the tables."""
    return session.scalar(select(func.to_regclass(f"{SCHEMA}.studies"))) is not None


def _delete(session: Session, study_ids: Sequence[int]) -> None:
    """Whatever belongs to the studies; found by its columns, so no table of a later Optuna is left out."""
    if not study_ids:
        return
    of_trials = select(_trials.c.trial_id).where(_trials.c.study_id.in_(study_ids))
    for name in _tables_with(session, "trial_id"):
        if name != _trials.name:
            rows = table(name, column("trial_id"), schema=SCHEMA)
            session.execute(delete(rows).where(rows.c.trial_id.in_(of_trials)))
    for name in sorted(_tables_with(session, "study_id"), key=_studies.name.__eq__):  # that of studies itself last
        rows = table(name, column("study_id"), schema=SCHEMA)
        session.execute(delete(rows).where(rows.c.study_id.in_(study_ids)))


def _tables_with(session: Session, name: str) -> Sequence[str]:
    found = select(_columns.c.table_name).where(_columns.c.table_schema == SCHEMA, _columns.c.column_name == name)
    return session.scalars(found.order_by(_columns.c.table_name)).all()
