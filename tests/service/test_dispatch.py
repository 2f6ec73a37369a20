"""Ringing for queued jobs: in order, fairly, and until somebody claims them, whatever the broker does."""

import pytest

from service import workers
from service.dispatch import dispatch
from service.errors import BrokerUnavailable
from service.session import Database
from tests.service.acting import claim, move_clock, read, submit


class Broker:
    """Remembers what was published; fails, drops or doubles on request."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        self.is_dead = False

    def publish(self, job_id: str, queue: str) -> None:
        if self.is_dead:
            raise BrokerUnavailable("dead")
        self.messages.append((job_id, queue))

    def take(self) -> list[str]:
        taken = [job_id for job_id, _ in self.messages]
        self.messages.clear()
        return taken


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_job_is_published_once_until_its_back_off_ends(database: Database, broker: Broker) -> None:
    job_id = submit(database)
    assert dispatch(database, broker.publish) == 1
    assert broker.messages == [(job_id, "cpu")]
    assert dispatch(database, broker.publish) == 0
    waits = []
    for _ in range(8):
        before = read(database, job_id).next_dispatch_at
        move_clock(database, 120)
        assert dispatch(database, broker.publish) == 1
        after = read(database, job_id).next_dispatch_at
        waits.append((after - before).total_seconds())
    assert broker.take() == [job_id] * 9
    assert max(waits) <= 61, "a lost message delays a job by a minute at most"


def test_lost_message_loses_no_job(database: Database, broker: Broker) -> None:
    job_id = submit(database)
    dispatch(database, broker.publish)
    broker.messages.clear()
    move_clock(database, 3)
    dispatch(database, broker.publish)
    assert broker.take() == [job_id]


def test_doubled_message_starts_one_attempt(database: Database, broker: Broker) -> None:
    submit(database)
    dispatch(database, broker.publish)
    (job_id,) = broker.take()
    assert [claim(database, job_id) is not None for _ in range(3)] == [True, False, False]


def test_dead_broker_loses_no_job(database: Database, broker: Broker) -> None:
    waiting = {submit(database), submit(database, queue="io")}
    broker.is_dead = True
    for _ in range(20):
        assert dispatch(database, broker.publish) == 0
        move_clock(database, 3)
    assert {read(database, job_id).status for job_id in waiting} == {"queued"}
    assert {read(database, job_id).dispatch_count for job_id in waiting} == {0}
    broker.is_dead = False
    assert dispatch(database, broker.publish) == 2
    assert set(broker.take()) == waiting


def test_brokers_queue_stays_short(database: Database, broker: Broker) -> None:
    for _ in range(20):
        submit(database)
    assert dispatch(database, broker.publish) == 2
    assert dispatch(database, broker.publish) == 0
    with database.session() as session:
        for n in range(3):
            workers.beat(session, f"wk_{n}", queue="cpu", device="cpu", details={})
    assert dispatch(database, broker.publish) == 4
    for job_id in broker.take()[:2]:
        claim(database, job_id)
    assert dispatch(database, broker.publish) == 2


def test_busy_workers_are_not_rung_again_for_the_same_job(database: Database, broker: Broker) -> None:
    running, waiting = submit(database), submit(database)
    dispatch(database, broker.publish)
    claim(database, running)
    broker.messages.clear()
    move_clock(database, 3)
    assert dispatch(database, broker.publish) == 0
    assert read(database, waiting).dispatch_count == 1


def test_the_queue_stays_short_beside_long_jobs_and_lets_the_urgent_pass(database: Database, broker: Broker) -> None:
    waiting = [submit(database) for _ in range(20)]
    dispatch(database, broker.publish)
    claim(database, waiting[0])
    for _ in range(11):  # a worker that is busy for a minute
        move_clock(database, 5)
        dispatch(database, broker.publish)
    assert broker.take() == waiting[:3]
    urgent = submit(database, priority=5)
    move_clock(database, 70)
    dispatch(database, broker.publish)
    assert broker.take()[0] == urgent


def test_a_lost_message_is_not_overtaken_for_ever_while_workers_are_busy(database: Database, broker: Broker) -> None:
    lost, running = submit(database), submit(database)
    dispatch(database, broker.publish)
    claim(database, running)
    broker.messages.clear()
    submit(database)
    move_clock(database, 70)
    dispatch(database, broker.publish)
    assert broker.take()[0] == lost


def test_priority_then_age_then_fair_shares(database: Database, broker: Broker) -> None:
    busy = [submit(database, tenant="busy") for _ in range(4)]
    claim(database, busy[0])
    other = [submit(database, tenant="other") for _ in range(2)]
    urgent = submit(database, tenant="busy", priority=1)
    with database.session() as session:
        for n in range(4):
            workers.beat(session, f"wk_{n}", queue="cpu", device="cpu", details={})
    dispatch(database, broker.publish)
    taken = broker.take()
    assert taken[:2] == [urgent, other[0]]
    assert taken.index(other[1]) < taken.index(busy[2])
    assert set(taken) == {urgent, *other, *busy[1:]}


def test_requeued_job_waits_for_its_delay(database: Database, broker: Broker) -> None:
    from service import attempts

    claimed = claim(database, submit(database))
    assert claimed is not None
    with database.session() as session:
        attempts.finish_failed(session, claimed, "worker_lost", "gone")
    assert dispatch(database, broker.publish) == 0
    move_clock(database, 5)
    assert dispatch(database, broker.publish) == 1
