"""Listeners hear what was committed, and only that; nothing is missed over a lost connection."""

import threading
from contextlib import suppress

import pytest
from sqlalchemy import text

from service import events
from service.errors import NotFound
from service.events import Listener
from service.session import Database
from tests.service.acting import submit


@pytest.fixture
def listener(database: Database):
    listener = Listener(database, events.EVENTS_CHANNEL)
    begun = threading.Event()
    with listener.subscribed("begun", begun.set):
        listener.start()
        assert begun.wait(10)
    yield listener
    listener.stop()


def test_subscriber_is_called_for_its_job_only(database: Database, listener: Listener) -> None:
    mine, other, any_job = threading.Event(), threading.Event(), threading.Event()
    job_id = submit(database)
    with (
        listener.subscribed(job_id, mine.set),
        listener.subscribed("job_other", other.set),
        listener.subscribed(None, any_job.set),
    ):
        with database.session() as session:
            events.append(session, job_id, "message", {"text": "hello"})
        assert mine.wait(5)
        assert any_job.wait(5)
        assert not other.is_set()
    mine.clear()
    with listener.subscribed(None, any_job.set):
        any_job.clear()
        with database.session() as session:
            events.append(session, job_id, "message", {"text": "again"})
        assert any_job.wait(5)
    assert not mine.is_set(), "a subscription ends with its block"


def test_nothing_is_heard_of_what_was_rolled_back(database: Database, listener: Listener) -> None:
    heard = threading.Event()
    with listener.subscribed(None, heard.set):
        job_id = submit(database)
        assert heard.wait(5)
        heard.clear()
        with suppress(ZeroDivisionError), database.session() as session:
            events.append(session, job_id, "message", {"text": "never"})
            raise ZeroDivisionError
        assert not heard.wait(0.5)
    with database.session() as session:
        assert len(events.list_events(session, job_id)) == 1


def test_everyone_is_called_after_a_lost_connection(database: Database, listener: Listener) -> None:
    heard = threading.Event()
    with listener.subscribed("job_any", heard.set):
        with database.session() as session:
            session.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'"))
        assert heard.wait(10)


def test_page_of_events(database: Database) -> None:
    job_id = submit(database)
    with database.session() as session:
        for n in range(5):
            events.append(session, job_id, "metrics" if n % 2 else "message", {"n": n})
        assert [event.seq for event in events.list_events(session, job_id, after=2, limit=3)] == [3, 4, 5]
        with pytest.raises(NotFound):
            events.append(session, "job_unknown", "message", {})
