"""What clients, workers and the clock do to jobs, in a line each, for the tests."""

from typing import Any

from sqlalchemy import text

from service import attempts, jobs
from service.attempts import Claim
from service.blobs import Blobs
from service.models import Job
from service.queue import make_celery
from service.session import Database
from service.settings import Settings
from service.sweeper import Sweeper

LEASE_S = 60.0


def submit(database: Database, **values: Any) -> str:
    with database.session() as session:
        values = {"tenant": "a", "kind": "diagnose", "spec": {"kind": "diagnose"}, "queue": "cpu", **values}
        return jobs.create_job(session, **values).id


def claim(database: Database, job_id: str, *, owner: str = "worker", **environment: Any) -> Claim | None:
    with database.session() as session:
        return attempts.claim(session, job_id, owner=owner, lease_s=LEASE_S, environment=environment)


def start(database: Database, **values: Any) -> Claim:
    claimed = claim(database, submit(database, **values))
    assert claimed is not None
    return claimed


def read(database: Database, job_id: str) -> Job:
    with database.session() as session:
        return session.get_one(Job, job_id)


def move_clock(database: Database, seconds: float) -> None:
    """Everything in the table was that much longer ago."""
    columns = ("lease_until", "heartbeat_at", "progress_at", "cancel_requested_at", "next_dispatch_at", "deadline_at")
    changes = ", ".join(f"{column} = {column} - make_interval(secs => :s)" for column in columns)
    with database.session() as session:
        session.execute(text(f"UPDATE jobs SET {changes}"), {"s": seconds})


def make_sweeper(settings: Settings, database: Database) -> Sweeper:
    """One whose broker swallows every message: what is tested here must not depend on them."""
    blobs = Blobs(settings.blob_store_url, database)
    return Sweeper(settings, database, make_celery(settings), blobs, publish_job=lambda job_id, queue: None)
