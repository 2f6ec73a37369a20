"""A job waits for its parts without a worker, and goes on exactly when all have ended."""

from collections.abc import Mapping
from typing import Any

import pytest

from service import attempts, datasets, jobs, sub_jobs
from service.attempts import Claim
from service.dispatch import dispatch
from service.errors import Fenced
from service.models import Event, Job
from service.session import Database
from service.settings import Settings
from tests.service.acting import claim, make_sweeper, move_clock, read, start, submit

PART: Mapping[str, Any] = {"kind": "diagnose", "device": "cpu"}


def suspend(database: Database, parent: Claim, *names: str) -> dict[str, str]:
    """The ids of the parts, by name."""
    with database.session() as session:
        sub_jobs.suspend(session, parent, {name: {**PART, "seed": n} for n, name in enumerate(names)})
    with database.session() as session:
        rows = session.query(Job.part, Job.id).filter_by(parent_id=parent.job_id).order_by(Job.part).all()
    return {str(part): job_id for part, job_id in rows}


def end(database: Database, job_id: str, result: dict[str, Any] | None = None) -> None:
    claimed = claim(database, job_id)
    assert claimed is not None
    with database.session() as session:
        if result is None:
            attempts.finish_failed(session, claimed, "diverged", "the loss is not finite")
        else:
            attempts.finish_succeeded(session, claimed, result)


def rung(database: Database) -> list[str]:
    found: list[str] = []
    dispatch(database, lambda job_id, queue: found.append(job_id))
    return found


def test_it_is_neither_rung_for_nor_claimed_while_a_part_goes_on(database: Database) -> None:
    parent = start(database)
    parts = suspend(database, parent, "a", "b")
    assert set(rung(database)) == set(parts.values())
    assert claim(database, parent.job_id) is None
    end(database, parts["a"], {"n": 1})
    move_clock(database, 1000)
    assert parent.job_id not in rung(database)
    waiting = read(database, parent.job_id)
    assert (waiting.status, waiting.progress) == ("queued", {"step": 1, "total": 2, "unit": "job"})
    end(database, parts["b"])
    assert parent.job_id in rung(database)
    with database.session() as session:
        ended = sub_jobs.ended(session, parent.job_id)
        assert {name: row.status for name, row in ended.items()} == {"a": "succeeded", "b": "failed"}
    assert claim(database, parent.job_id) is not None


def test_waiting_costs_no_attempt(database: Database) -> None:
    parent = start(database, max_attempts=1)
    end(database, suspend(database, parent, "a")["a"], {})
    rung(database)
    again = claim(database, parent.job_id)
    assert again is not None
    row = read(database, parent.job_id)
    assert (row.attempt, [entry.get("outcome") for entry in row.attempts]) == (1, ["waiting", None])


def test_parts_that_are_there_are_not_made_again(database: Database) -> None:
    parent = start(database)
    first = suspend(database, parent, "a", "b")
    end(database, first["a"], {})
    end(database, first["b"], {})
    rung(database)
    again = claim(database, parent.job_id)
    assert again is not None
    second = suspend(database, again, "a", "b", "c")
    assert {name: second[name] for name in first} == first
    assert read(database, second["c"]).status == "queued"


def test_a_part_takes_after_its_job(database: Database) -> None:
    parent = start(database, tenant="b", priority=3, max_attempts=5, key_id="key")
    part = read(database, suspend(database, parent, "a")["a"])
    assert (part.tenant, part.priority, part.max_attempts, part.key_id) == ("b", 3, 5, "key")
    assert part.spec == {**PART, "seed": 0}


def test_an_attempt_that_lost_its_job_makes_no_parts(database: Database) -> None:
    parent = start(database)
    with database.session() as session:
        attempts.release(session, parent)
    with pytest.raises(Fenced):
        suspend(database, parent, "a")
    assert jobs_of(database, parent.job_id) == []


def test_a_cancel_comes_before_the_parts(database: Database) -> None:
    parent = start(database)
    with database.session() as session:
        jobs.request_cancel(session, "a", parent.job_id)
    assert suspend(database, parent, "a") == {}
    assert read(database, parent.job_id).status == "cancelled"


@pytest.mark.parametrize("why", ["cancel", "deadline"])
def test_parts_end_with_their_job(settings: Settings, database: Database, why: str) -> None:
    parent = start(database, deadline_s=60 if why == "deadline" else None)
    parts = suspend(database, parent, "a", "b", "c")
    end(database, parts["a"], {})
    assert claim(database, parts["b"]) is not None
    if why == "cancel":
        with database.session() as session:
            jobs.request_cancel(session, "a", parent.job_id)
    else:
        move_clock(database, 61)
    make_sweeper(settings, database).run_once()
    make_sweeper(settings, database).run_once()
    assert read(database, parent.job_id).status == ("cancelled" if why == "cancel" else "failed")
    ends = [read(database, parts[name]).status for name in "abc"]
    assert ends[0] == "succeeded"
    assert ends[1] in ("cancelling", "queued", "cancelled")  # its lease may have run out first
    assert ends[2] == "cancelled"


def test_parts_are_listed_where_asked_for_and_deleted_with_their_job(database: Database) -> None:
    parent = start(database)
    parts = suspend(database, parent, "a", "b")
    other = submit(database)
    with database.session() as session:
        assert {row.id for row in jobs.list_jobs(session, "a")[0]} == {parent.job_id, other}
        assert {row.id for row in jobs.list_jobs(session, "a", parent=parent.job_id)[0]} == set(parts.values())
        assert jobs.list_jobs(session, "b", parent=parent.job_id)[0] == []
        assert jobs.count_unfinished(session, "a") == 2
        jobs.request_cancel(session, "a", parent.job_id)
        jobs.delete(session, "a", parent.job_id)
    assert jobs_of(database, parent.job_id) == []
    with database.session() as session:
        assert session.query(Event).filter(Event.job_id.in_(parts.values())).count() == 0


def test_a_dataset_that_a_waiting_job_needs_stays(database: Database) -> None:
    with database.session() as session:
        dataset = datasets.create(session, tenant="a", name="d", modality="image", sha256="0" * 64, size_bytes=1)
        datasets.set_ready(session, dataset.id, pack_sha256="0" * 64, classes=["x", "y"], splits={}, report={})
    parent = start(database, dataset_id=dataset.id)
    part = read(database, suspend(database, parent, "a")["a"])
    assert part.dataset_id == dataset.id


def test_too_many_parts_are_refused(database: Database) -> None:
    parent = start(database)
    with pytest.raises(ValueError, match="1001 sub-jobs, expected at most 1000"), database.session() as session:
        sub_jobs.suspend(session, parent, {str(n): PART for n in range(1001)})


def jobs_of(database: Database, parent_id: str) -> list[Any]:
    with database.session() as session:
        return session.query(Job.id).filter_by(parent_id=parent_id).all()
