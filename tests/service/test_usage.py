"""Usage: requests by the day without a write each, computing exactly once."""

import threading
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import func, select, text

from mr_core.errors import JobCancelled
from service import attempts, datasets, jobs, usage
from service.errors import Fenced
from service.keys import Caller
from service.models import DailyUsage, EndedAttempt
from service.session import Database
from service.settings import Settings
from service.usage import UsageMeter
from tests.service.acting import claim, make_sweeper, move_clock, read, start, submit

CALLER = Caller("a", frozenset({"read"}), "key_1")
OTHER = Caller("b", frozenset({"read"}), "key_2")


def _used(database: Database, tenant: str = "a", key_id: str | None = None) -> dict[str | None, usage.Used]:
    today = datetime.now(UTC).date()
    with database.session() as session:
        return usage.used_by_key(session, tenant, first=today - timedelta(1), last=today + timedelta(1), key_id=key_id)


def _ended(database: Database) -> list[EndedAttempt]:
    with database.session() as session:
        return list(session.scalars(select(EndedAttempt).order_by(EndedAttempt.job_id, EndedAttempt.number)))


def test_counts_of_a_day_add_up(database: Database) -> None:
    meter = UsageMeter(database)
    for _ in range(3):
        meter.count(CALLER, requests=1)
    meter.count(CALLER, uploads=1, uploaded_bytes=5)
    meter.count(OTHER, requests=7)
    assert _used(database) == {}, "nothing is written before the flush"
    meter.flush()
    meter.count(CALLER, requests=2, predictions=1, predicted_images=4)
    meter.flush()
    meter.flush()
    (used,) = _used(database).values()
    assert used.counts == {
        "requests": 5,
        "uploads": 1,
        "uploaded_bytes": 5,
        "predictions": 1,
        "predicted_images": 4,
    }
    assert _used(database, "b")["key_2"].counts["requests"] == 7
    assert _used(database, key_id="key_2") == {}
    with database.session() as session:
        assert session.scalars(select(func.count()).select_from(DailyUsage)).one() == 2


def test_several_gateways_and_threads_lose_nothing(database: Database) -> None:
    meters = [UsageMeter(database), UsageMeter(database)]

    def use(meter: UsageMeter) -> None:
        for n in range(50):
            meter.count(CALLER, requests=1)
            meter.count(OTHER, requests=1)
            if n % 10 == 0:
                meter.flush()

    threads = [threading.Thread(target=use, args=(meter,)) for meter in meters for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for meter in meters:
        meter.stop()
    assert _used(database)["key_1"].counts["requests"] == 200
    assert _used(database, "b")["key_2"].counts["requests"] == 200


def test_counts_wait_for_a_database_that_is_away(database: Database, empty_database_url: str) -> None:
    meter = UsageMeter(Database("postgresql://nobody@127.0.0.1:9/none"))
    meter.count(CALLER, requests=2)
    meter.flush()
    meter.count(CALLER, requests=1)
    meter._database = database
    meter.flush()
    assert _used(database)["key_1"].counts["requests"] == 3


def test_days_are_told_apart(database: Database) -> None:
    with database.session() as session:
        usage.add(session, "a", "key_1", {"requests": 1})
        session.execute(text("UPDATE daily_usage SET day = '2026-01-31'"))
        usage.add(session, "a", "key_1", {"requests": 2})
        first, last = date(2026, 1, 30), date(2026, 1, 31)
        assert usage.used_by_key(session, "a", first=first, last=last)["key_1"].counts["requests"] == 1
        assert usage.used_by_key(session, "a", first=first, last=first) == {}


def test_an_attempt_is_noted_as_it_ends(database: Database) -> None:
    with database.session() as session:
        dataset = datasets.create(session, tenant="a", name="d", modality="image", sha256="0" * 64, size_bytes=1)
        session.execute(
            text("UPDATE datasets SET status = 'ready', splits = :splits, classes = '{x,y}'"),
            {"splits": '{"train": 40, "test": 8}'},
        )
        dataset_id = dataset.id
    spec = {"kind": "diagnose", "samples": 10, "kernel": "pseudo", "backbone": "builtin/mini-clip"}
    claimed = start(database, spec=spec, dataset_id=dataset_id, key_id="key_1")
    with database.session() as session:
        attempts.record_memory(session, claimed, 3 << 30)
        attempts.finish_succeeded(session, claimed, {"timing": {"seconds": 1.5}})
    (ended,) = _ended(database)
    assert (ended.job_id, ended.number, ended.tenant, ended.key_id) == (claimed.job_id, 1, "a", "key_1")
    assert (ended.kind, ended.queue, ended.backbone, ended.outcome) == (
        "diagnose",
        "cpu",
        "builtin/mini-clip",
        "succeeded",
    )
    assert (ended.work_s, ended.images, ended.peak_memory_bytes) == (1.5, 40, 3 << 30)
    assert ended.seconds >= 0
    assert read(database, claimed.job_id).attempts[0]["peak_memory_bytes"] == 3 << 30
    used = _used(database)["key_1"]
    assert used.jobs == {"diagnose": {"succeeded": 1}}
    assert (used.compute["cpu"].attempts, used.compute["cpu"].images) == (1, 40)


def test_every_way_to_end_counts_once(database: Database, settings: Settings) -> None:
    failed = start(database)
    with database.session() as session:
        assert attempts.finish_failed(session, failed, "worker_lost", "gone") == "queued"
    again = claim(database, failed.job_id)
    assert again is not None
    with database.session() as session:
        attempts.finish_failed(session, again, "diverged", "nan")
    released = start(database)
    with database.session() as session:
        attempts.release(session, released)
    lost = start(database)
    with database.session() as session:
        session.execute(text("UPDATE jobs SET next_dispatch_at = now() + interval '1 day' WHERE status = 'queued'"))
    move_clock(database, 100)
    make_sweeper(settings, database).run_once()
    never = submit(database)
    with database.session() as session:
        jobs.cancel(session, never)
    outcomes = sorted((ended.job_id, ended.number, ended.outcome) for ended in _ended(database))
    assert outcomes == sorted(
        [
            (failed.job_id, 1, "worker_lost"),
            (failed.job_id, 2, "diverged"),
            (released.job_id, 1, "interrupted"),
            (lost.job_id, 1, "worker_lost"),
        ]
    )
    assert all(ended.images is None and ended.work_s is None for ended in _ended(database))


def test_what_is_not_committed_does_not_count(database: Database) -> None:
    claimed = start(database)
    with database.session() as session:
        attempts.finish_succeeded(session, claimed, {})
        session.rollback()
    assert _ended(database) == []
    with database.session() as session:
        attempts.finish_succeeded(session, claimed, {})
    with pytest.raises(Fenced), database.session() as session:
        attempts.finish_succeeded(session, claimed, {})
    with pytest.raises(Fenced), database.session() as session:
        attempts.record_memory(session, claimed, 1)
    assert len(_ended(database)) == 1


def test_memory_is_noted_of_a_cancelled_attempt_too(database: Database) -> None:
    claimed = start(database)
    with database.session() as session:
        jobs.cancel(session, claimed.job_id)
    with pytest.raises(JobCancelled), database.session() as session:
        attempts.finish_succeeded(session, claimed, {})
    with database.session() as session:
        attempts.record_memory(session, claimed, 5)
        attempts.finish_cancelled(session, claimed)
    (ended,) = _ended(database)
    assert (ended.outcome, ended.peak_memory_bytes) == ("cancelled", 5)


def test_a_deleted_job_has_still_used_what_it_used(database: Database) -> None:
    claimed = start(database, key_id="key_1")
    with database.session() as session:
        attempts.finish_succeeded(session, claimed, {})
        jobs.delete(session, "a", claimed.job_id)
    used = _used(database)["key_1"]
    assert used.jobs == {}
    assert used.compute["cpu"].attempts == 1
