"""Jobs as clients see them."""

import threading

import pytest
from sqlalchemy import text

from service import attempts, datasets, events, jobs
from service.errors import (
    DatasetInUse,
    DatasetNotReady,
    IdempotencyKeyReused,
    JobFinished,
    JobNotFinished,
    JobNotRetryable,
    NotFound,
    QuotaExceeded,
)
from service.models import Dataset, Job
from service.session import Database
from tests.service.acting import claim, read, start, submit


def upload(database: Database, tenant: str = "a") -> Dataset:
    with database.session() as session:
        return datasets.create(session, tenant=tenant, name="d", modality="image", sha256="0" * 64, size_bytes=1)


def validate(database: Database, dataset: Dataset) -> None:
    with database.session() as session:
        datasets.set_ready(
            session, dataset.id, pack_sha256="1" * 64, classes=["x", "y"], splits={"train": 2, "test": 2}, report={}
        )


def test_new_job_is_queued_and_says_so(database: Database) -> None:
    job = read(database, submit(database, metadata={"team": "x"}))
    assert (job.status, job.attempt, job.attempts, job.error, job.result) == ("queued", 0, [], None, None)
    with database.session() as session:
        assert [event.data for event in events.list_events(session, job.id)] == [{"status": "queued"}]


def test_other_tenants_job_is_not_found(database: Database) -> None:
    job_id = submit(database)
    with database.session() as session:
        for use in (jobs.get_job, jobs.request_cancel, jobs.retry, jobs.delete):
            with pytest.raises(NotFound):
                use(session, "b", job_id)
        assert jobs.list_jobs(session, "b") == ([], False)
        with pytest.raises(NotFound):
            jobs.list_jobs(session, "b", after=job_id)
    assert read(database, job_id).status == "queued"


def test_pages_neither_repeat_nor_skip(database: Database) -> None:
    with database.session() as session:  # one transaction: all created at the same moment
        values = {"tenant": "a", "kind": "diagnose", "spec": {}, "queue": "cpu"}
        expected = {jobs.create_job(session, **values).id for _ in range(7)}
    expected |= {submit(database) for _ in range(3)}
    seen: list[str] = []
    after, has_more = None, True
    while has_more:
        with database.session() as session:
            found, has_more = jobs.list_jobs(session, "a", after=after, limit=3)
        seen += [job.id for job in found]
        after = seen[-1]
        submit(database)  # newer than the page before: must not shift it
    assert len(seen) == len(set(seen)) == 10
    assert set(seen) == expected


def test_filters(database: Database) -> None:
    ready = upload(database)
    validate(database, ready)
    one = submit(database, kind="diagnose", metadata={"team": "x", "run": "1"})
    two = submit(database, kind="reprogram", metadata={"team": "x"}, dataset_id=ready.id)
    with database.session() as session:
        jobs.request_cancel(session, "a", one)
        asked = [
            ({"status": "cancelled"}, [one]),
            ({"kind": "reprogram"}, [two]),
            ({"dataset": ready.id}, [two]),
            ({"metadata": {"team": "x"}}, [two, one]),
            ({"metadata": {"team": "x", "run": "1"}}, [one]),
            ({"status": "cancelled", "kind": "reprogram"}, []),
        ]
        for filters, expected in asked:
            assert [job.id for job in jobs.list_jobs(session, "a", **filters)[0]] == expected


def test_same_idempotency_key_gives_the_same_job(database: Database) -> None:
    first = submit(database, idempotency_key="k")
    assert submit(database, idempotency_key="k") == first
    assert submit(database, idempotency_key="k", tenant="b") != first
    with pytest.raises(IdempotencyKeyReused):
        submit(database, idempotency_key="k", spec={"kind": "other"})


def test_simultaneous_requests_with_one_key_make_one_job(database: Database) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(submit(database, idempotency_key="k"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 5
    assert len(set(made)) == 1


def test_quota_counts_unfinished_jobs(database: Database) -> None:
    first = submit(database, max_unfinished=2)
    submit(database, max_unfinished=2)
    with pytest.raises(QuotaExceeded, match="2 is the limit"):
        submit(database, max_unfinished=2)
    with database.session() as session:
        jobs.request_cancel(session, "a", first)
    submit(database, max_unfinished=2)


def test_cancel_of_a_queued_job_is_at_once(database: Database) -> None:
    job_id = submit(database)
    with database.session() as session:
        assert jobs.request_cancel(session, "a", job_id).status == "cancelled"
    assert claim(database, job_id) is None
    with database.session() as session, pytest.raises(JobFinished):
        jobs.request_cancel(session, "a", job_id)


def test_cancel_of_a_running_job_may_be_repeated(database: Database) -> None:
    claimed = start(database)
    for _ in range(2):
        with database.session() as session:
            assert jobs.request_cancel(session, "a", claimed.job_id).status == "cancelling"


def test_retry_is_a_new_job(database: Database) -> None:
    claimed = start(database, metadata={"team": "x"}, spec={"kind": "diagnose", "seed": 3})
    with database.session() as session:
        with pytest.raises(JobNotRetryable):
            jobs.retry(session, "a", claimed.job_id)
        attempts.finish_failed(session, claimed, "diverged", "nan")
    with database.session() as session:
        again = jobs.retry(session, "a", claimed.job_id)
    assert (again.status, again.retry_of, again.attempt) == ("queued", claimed.job_id, 0)
    assert (again.spec, again.metadata_) == ({"kind": "diagnose", "seed": 3}, {"team": "x"})
    assert read(database, claimed.job_id).status == "failed"


def test_only_an_ended_job_can_be_deleted(database: Database) -> None:
    job_id = submit(database)
    with database.session() as session, pytest.raises(JobNotFinished):
        jobs.delete(session, "a", job_id)
    with database.session() as session:
        jobs.request_cancel(session, "a", job_id)
        jobs.delete(session, "a", job_id)
    with database.session() as session:
        assert events.list_events(session, job_id) == []
        with pytest.raises(NotFound):
            jobs.get_job(session, "a", job_id)


def test_validation_job_is_invisible(database: Database) -> None:
    dataset = upload(database)
    with database.session() as session:
        job_id = session.query(Job.id).filter_by(dataset_id=dataset.id).scalar()
        assert jobs.list_jobs(session, "a") == ([], False)
        assert jobs.count_unfinished(session, "a") == 0
        for use in (jobs.get_job, jobs.request_cancel, jobs.retry, jobs.delete):
            with pytest.raises(NotFound):
                use(session, "a", job_id)
    assert read(database, job_id).queue == "io"


def test_dataset_is_readable_once_validated(database: Database) -> None:
    dataset = upload(database)
    with database.session() as session, pytest.raises(DatasetNotReady):
        datasets.require_ready(session, "a", dataset.id)
    validate(database, dataset)
    with database.session() as session:
        assert datasets.require_ready(session, "a", dataset.id).classes == ["x", "y"]
        with pytest.raises(NotFound):
            datasets.require_ready(session, "b", dataset.id)


def test_dataset_in_use_cannot_be_deleted(database: Database) -> None:
    dataset = upload(database)
    job_id = submit(database, dataset_id=dataset.id)
    with database.session() as session, pytest.raises(DatasetInUse, match=job_id):
        datasets.delete(session, "a", dataset.id)
    with database.session() as session:
        jobs.request_cancel(session, "a", job_id)
        datasets.delete(session, "a", dataset.id)
        assert (
            session.query(Job.status).filter_by(dataset_id=dataset.id, kind=datasets.VALIDATE).scalar() == "cancelled"
        )
    with pytest.raises(NotFound):
        submit(database, dataset_id=dataset.id)


def test_dataset_is_deleted_or_used_but_not_both(database: Database) -> None:
    for _ in range(10):
        dataset = upload(database)
        validate(database, dataset)
        outcomes: list[str] = []

        def use(dataset: Dataset = dataset, outcomes: list[str] = outcomes) -> None:
            try:
                submit(database, dataset_id=dataset.id)
                outcomes.append("used")
            except NotFound:
                pass

        def drop(dataset: Dataset = dataset, outcomes: list[str] = outcomes) -> None:
            try:
                with database.session() as session:
                    datasets.delete(session, "a", dataset.id)
                outcomes.append("deleted")
            except DatasetInUse:
                pass

        threads = [threading.Thread(target=use), threading.Thread(target=drop)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 1


def test_jobs_are_found_by_metadata_through_an_index(database: Database) -> None:
    many = """
        INSERT INTO jobs (id, tenant, kind, spec, queue, metadata)
            SELECT 'job_' || n, 'a', 'diagnose', '{}', 'cpu', jsonb_build_object('run', n::text)
            FROM generate_series(1, 5000) n
    """
    with database.session() as session:
        session.execute(text(many))
    with database.session() as session:
        session.execute(text("ANALYZE jobs"))
        found, _ = jobs.list_jobs(session, "a", metadata={"run": "77"})
        listed = (
            "EXPLAIN SELECT * FROM jobs WHERE tenant = 'a' AND kind <> 'validate_dataset'"
            " AND metadata @> CAST(:wanted AS jsonb) ORDER BY created_at DESC, id DESC LIMIT 21"
        )
        plan = " ".join(session.scalars(text(listed), {"wanted": '{"run": "77"}'}))
    assert [job.id for job in found] == ["job_77"]
    assert "jobs_by_metadata" in plan
