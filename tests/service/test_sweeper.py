"""The sweeper ends what nobody else does; several at once do each thing once."""

import threading
import time

import pytest

from service import attempts, datasets, events, jobs
from service.blobs import Blobs
from service.models import Job
from service.queue import make_celery
from service.session import Database
from service.settings import Settings
from service.sweeper import Sweeper
from tests.service.acting import LEASE_S, claim, make_sweeper, move_clock, read, start, submit


@pytest.fixture
def sweeper(settings: Settings, database: Database) -> Sweeper:
    return make_sweeper(settings, database)


def test_lost_worker_costs_an_attempt(database: Database, sweeper: Sweeper) -> None:
    claimed = start(database, max_attempts=2)
    sweeper.run_once()
    assert read(database, claimed.job_id).status == "running"
    move_clock(database, LEASE_S + 1)
    sweeper.run_once()
    assert read(database, claimed.job_id).status == "queued"
    assert claim(database, claimed.job_id) is not None
    move_clock(database, LEASE_S + 1)
    sweeper.run_once()
    job = read(database, claimed.job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "worker_lost"


def test_unanswered_cancel_is_enforced_and_the_worker_fenced(database: Database, sweeper: Sweeper) -> None:
    claimed = start(database)
    with database.session() as session:
        jobs.request_cancel(session, "a", claimed.job_id)
    sweeper.run_once()
    assert read(database, claimed.job_id).status == "cancelling"
    move_clock(database, 3)
    sweeper.run_once()
    assert read(database, claimed.job_id).status == "cancelled"
    with pytest.raises(attempts.Fenced), database.session() as session:
        attempts.heartbeat(session, claimed)


@pytest.mark.parametrize("is_running", [False, True])
def test_deadline_ends_a_job(database: Database, sweeper: Sweeper, is_running: bool) -> None:
    job_id = submit(database, deadline_s=10)
    if is_running:
        claim(database, job_id)
    move_clock(database, 11)
    assert claim(database, job_id) is None
    sweeper.run_once()
    job = read(database, job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "timeout"


def test_stalled_phase_is_retried(settings: Settings, database: Database) -> None:
    limits = {"progress_deadline_s": 1000.0, "progress_deadlines_s": {"training": 20.0}}
    sweeper = make_sweeper(settings.model_copy(update=limits), database)
    slow, stalled = start(database), start(database)
    with database.session() as session:
        attempts.record_phase(session, slow, "embedding")
        attempts.record_phase(session, stalled, "training")
    move_clock(database, 20 + 2 * settings.lease_s + 1)
    sweeper.run_once()
    assert read(database, slow.job_id).status == "running"
    job = read(database, stalled.job_id)
    assert job.status == "queued"
    assert job.attempts[-1]["outcome"] == "progress_stalled"


def test_dataset_whose_validation_is_given_up_is_invalid(database: Database, sweeper: Sweeper) -> None:
    with database.session() as session:
        dataset = datasets.create(
            session, tenant="a", name="d", modality="image", sha256="0" * 64, size_bytes=1, max_attempts=1
        )
        job_id = session.query(attempts.Job.id).filter_by(dataset_id=dataset.id).scalar()
    claim(database, job_id)
    move_clock(database, LEASE_S + 1)
    sweeper.run_once()
    with database.session() as session:
        found = datasets.get(session, "a", dataset.id)
    assert found.status == "invalid"
    assert found.error is not None
    assert found.error["code"] == "worker_lost"


def test_the_validation_of_a_deleted_dataset_goes_with_the_garbage(database: Database, sweeper: Sweeper) -> None:
    with database.session() as session:
        kept, deleted = (
            datasets.create(session, tenant="a", name="d", modality="image", sha256="0" * 64, size_bytes=1)
            for _ in range(2)
        )
        datasets.delete(session, "a", deleted.id)
    sweeper.collect_garbage()
    with database.session() as session:
        assert session.query(Job.dataset_id).all() == [(kept.id,)]


def test_several_sweepers_do_each_thing_once(settings: Settings, database: Database) -> None:
    published: list[str] = []
    blobs = Blobs(settings.blob_store_url, database)
    celery = make_celery(settings)
    lost = [start(database).job_id for _ in range(30)]
    move_clock(database, LEASE_S + 1)
    fresh = submit(database, tenant="b")
    sweepers = [
        Sweeper(settings, database, celery, blobs, publish_job=lambda job_id, queue: published.append(job_id))
        for _ in range(4)
    ]
    threads = [threading.Thread(target=sweeper.run_once) for sweeper in sweepers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fresh in published
    for job_id in [fresh, *lost]:  # on a slow machine a back-off may end meanwhile; nothing is published unnoted
        assert published.count(job_id) == read(database, job_id).dispatch_count
    for job_id in lost:
        job = read(database, job_id)
        assert job.status == "queued"
        assert [attempt["outcome"] for attempt in job.attempts] == ["worker_lost"]
        with database.session() as session:
            seqs = [event.seq for event in events.list_events(session, job_id)]
        assert seqs == [1, 2, 3]


def test_running_sweeper_rings_as_soon_as_a_job_arrives(settings: Settings, database: Database) -> None:
    slow = settings.model_copy(update={"sweep_s": 60.0})
    published: dict[str, float] = {}
    sweeper = Sweeper(
        slow,
        database,
        make_celery(slow),
        Blobs(slow.blob_store_url, database),
        publish_job=lambda job_id, queue: published.setdefault(job_id, time.monotonic()),
    )
    stop = threading.Event()
    thread = threading.Thread(target=sweeper.run, args=(stop,))
    thread.start()
    try:
        time.sleep(1)
        submitted_at = time.monotonic()
        job_id = submit(database)
        while job_id not in published and time.monotonic() < submitted_at + 10:
            time.sleep(0.02)
        assert published[job_id] - submitted_at < 2
    finally:
        stop.set()
        thread.join(timeout=10)
    assert not thread.is_alive()


def test_sweeper_outlives_a_database_that_is_away(settings: Settings, database: Database, caplog) -> None:
    sweeper = make_sweeper(settings, database)
    broken = iter([ZeroDivisionError("a bug")])
    run_once, rounds = sweeper.run_once, []

    def sometimes() -> None:
        for error in broken:
            raise error
        rounds.append(run_once())
        if len(rounds) == 2:
            stop.set()

    sweeper.run_once = sometimes  # type: ignore[method-assign]
    stop = threading.Event()
    sweeper.run(stop)
    assert len(rounds) == 2
