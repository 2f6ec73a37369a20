import json

import numpy as np
import pytest
from sqlalchemy import func, select

from mr_core.errors import JobCancelled
from mr_core.observer import Checkpoint
from service import attempts, events, jobs
from service.errors import DatabaseUnavailable, Fenced
from service.models import Blob, Job
from worker.lifeline import Lifeline
from worker.observer import DatabaseObserver, Interrupted


@pytest.fixture
def claim(database):
    with database.session() as session:
        job = jobs.create_job(session, tenant="t", kind="toy", spec={}, queue="cpu")
        return attempts.claim(session, job.id, owner="wk", lease_s=60, environment={})


@pytest.fixture
def lifeline():
    return Lifeline()


@pytest.fixture
def observer(database, blobs, claim, lifeline):
    return DatabaseObserver(database, blobs, claim, lifeline)


def told(database, claim):
    with database.session() as session:
        return [
            (event.type, event.data) for event in events.list_events(session, claim.job_id) if event.type != "status"
        ]


def job(database, claim):
    with database.session() as session:
        return session.get(Job, claim.job_id)


def test_progress_is_written_twice_a_second_at_most_and_always_at_the_end(database, claim, observer):
    observer.phase("training")
    for step in range(1, 1001):
        observer.progress(step, 1000)
    stored = job(database, claim)
    assert (stored.phase, stored.progress["step"], stored.progress["percent"]) == ("training", 1000, 100.0)


def test_events_keep_their_order_across_phases(database, claim, observer):
    observer.phase("embedding")
    observer.message("one")
    observer.metrics({"epoch": 1, "loss": 0.5})
    observer.phase("training")
    observer.message("two", level="warning")
    observer.flush()
    assert told(database, claim) == [
        ("phase", {"phase": "embedding"}),
        ("message", {"text": "one"}),
        ("metrics", {"epoch": 1, "loss": 0.5}),
        ("phase", {"phase": "training"}),
        ("message", {"text": "two"}),
    ]


def test_a_checkpoint_comes_back_as_it_was(observer):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7, dtype=np.int64)}
    assert observer.load_checkpoint("training") is None
    observer.save_checkpoint("training", Checkpoint(1, {"old": True}, {"a": np.zeros(1)}))
    observer.save_checkpoint("training", Checkpoint(3, {"seed": 1, "loss": [0.5]}, arrays))
    found = observer.load_checkpoint("training")
    assert (found.step, found.state, found.arrays.keys()) == (3, {"seed": 1, "loss": [0.5]}, arrays.keys())
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
        found.arrays[name][...] = 0  # the run may write to it


def test_a_checkpoint_takes_the_place_of_its_predecessor_in_the_store_too(database, blobs, observer):
    def n_blobs():
        with database.session() as session:
            return session.scalar(select(func.count()).select_from(Blob))

    before = n_blobs()
    for step in range(5):
        observer.save_checkpoint("training", Checkpoint(step, {}, {"a": np.full(3, step)}))
        observer.save_checkpoint("seed_1", Checkpoint(step, {}, {"b": np.full(3, step + 0.5)}))
    assert n_blobs() == before + 2
    observer.save_checkpoint("training", Checkpoint(5, {}, {"a": np.full(3, 4)}))  # the same bytes once more
    observer.save_checkpoint("seed_1", Checkpoint(5, {}, {"a": np.full(3, 4)}))  # and shared by two
    observer.save_checkpoint("seed_1", Checkpoint(6, {}, {"a": np.full(3, 9)}))
    assert n_blobs() == before + 2
    np.testing.assert_array_equal(observer.load_checkpoint("training").arrays["a"], np.full(3, 4))


def test_a_checkpoint_is_json_and_safetensors_alone(database, blobs, observer, claim):
    observer.save_checkpoint("training", Checkpoint(1, {"x": 1}, {"a": np.zeros(2, dtype=np.uint8)}))
    with database.session() as session:
        stored = attempts.load_checkpoint(session, claim, "training")
        content = blobs.read(session, stored.sha256)
    length = int.from_bytes(content[:8], "little")
    assert json.loads(content[8 : 8 + length])["a"]["shape"] == [2]


def test_a_cancel_ends_the_run_whether_it_is_heard_or_read(database, claim, observer, lifeline):
    observer.phase("training")
    with database.session() as session:
        jobs.request_cancel(session, "t", claim.job_id)
    with pytest.raises(JobCancelled):
        observer.flush()
    assert lifeline.cancelled.is_set()
    with pytest.raises(JobCancelled):
        observer.beat()


def test_a_stop_waits_for_the_next_checkpoint(observer, lifeline):
    lifeline.stopping.set()
    observer.progress(1, 10)
    with pytest.raises(Interrupted):
        observer.save_checkpoint("training", Checkpoint(1, {}, {"a": np.zeros(1)}))
    assert observer.load_checkpoint("training").step == 1


def test_an_attempt_without_the_lease_writes_nothing(database, claim, observer):
    with database.session() as session:
        attempts.release(session, claim)
    for write in (
        lambda: observer.phase("training"),
        lambda: observer.save_checkpoint("training", Checkpoint(1, {}, {"a": np.zeros(1)})),
    ):
        with pytest.raises(Fenced):
            write()
    assert told(database, claim) == []


def test_events_wait_while_the_database_does_not_answer(database, claim, observer, monkeypatch):
    def fail(*_, **__):
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr("service.attempts.record_events", fail)
        observer.message("one")
        observer.message("two")
        observer.flush()
    observer.flush()
    assert told(database, claim) == [("message", {"text": "one"}), ("message", {"text": "two"})]
