"""Deliveries reach a real receiver: at least once, one at a time, under one id, and no later than patience lasts."""

import email.utils
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook as Verifier

from service import attempts, safe_http, webhooks
from service.blobs import Blobs
from service.deliveries import SLOTS, TENANT_SLOTS, Claimed, Deliverer, Outcome, back_off_s, claim, delete_old, settle
from service.models import Webhook, WebhookDelivery
from service.queue import make_celery
from service.session import Database
from service.settings import Settings
from service.sweeper import Sweeper
from tests.service.acting import start, submit
from tests.service.receiving import Receiver, receiving

HOUR = 3600.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def local(settings: Settings) -> Settings:
    """Settings under which the tests' receiver may be called."""
    return settings.model_copy(update={"allow_loopback_urls": True, "webhook_timeout_s": 5.0})


@pytest.fixture
def deliverer(local: Settings, database: Database) -> Deliverer:
    return Deliverer(local, database)


def hook(database: Database, url: str, *, tenant: str = "a", events: tuple[str, ...] = ("*",)) -> str:
    with database.session() as session:
        return webhooks.create(session, tenant=tenant, url=url, events=events).id


def ping(database: Database, webhook: str, *, tenant: str = "a") -> str:
    with database.session() as session:
        return webhooks.queue_test(session, tenant, webhook).id


def read(database: Database, delivery: str) -> WebhookDelivery:
    with database.session() as session:
        return session.get_one(WebhookDelivery, delivery)


def pass_time(database: Database, seconds: float) -> None:
    """Every delivery was that much longer ago."""
    columns = ("next_attempt_at", "lease_until", "finished_at")
    changes = ", ".join(f"{column} = {column} - make_interval(secs => :s)" for column in columns)
    with database.session() as session:
        session.execute(text(f"UPDATE webhook_deliveries SET {changes}"), {"s": seconds})


def take(database: Database, limit: int = 100) -> list[Claimed]:
    with database.session() as session:
        return claim(session, limit=limit, lease_s=60)


@contextmanager
def running(*workers: Deliverer | Sweeper) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=worker.run, args=(stop,)) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()


def eventually(holds, what: str) -> None:
    give_up_at = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up_at, what
        time.sleep(0.02)


def test_a_job_is_told_of_and_the_signature_verifies(
    database: Database, deliverer: Deliverer, receiver: Receiver
) -> None:
    webhook = hook(database, receiver.url, events=("job.succeeded",))
    claimed = start(database, metadata={"team": "a"})
    with database.session() as session:
        attempts.finish_succeeded(session, claimed, {})
        secret = webhooks.get(session, "a", webhook).secret
    assert deliverer.run_once() == 1
    [request] = receiver.requests
    message = Verifier(secret).verify(request.body, dict(request.headers))
    assert message == json.loads(request.body)
    assert (message["type"], message["data"]["id"]) == ("job.succeeded", claimed.job_id)
    assert request.headers["content-type"] == "application/json"
    row = read(database, request.headers["webhook-id"])
    assert (row.status, row.attempts, row.response_status, row.error) == ("succeeded", 1, 204, None)
    assert (row.next_attempt_at, row.lease_until) == (None, None)
    assert row.finished_at is not None
    assert deliverer.run_once() == 0


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_every_2xx_is_success(database: Database, deliverer: Deliverer, receiver: Receiver, status: int) -> None:
    delivery = ping(database, hook(database, receiver.url))
    receiver.answer(status)
    deliverer.run_once()
    assert read(database, delivery).status == "succeeded"


def test_retried_under_the_same_id_with_the_same_body(
    database: Database, deliverer: Deliverer, receiver: Receiver
) -> None:
    delivery = ping(database, hook(database, receiver.url))
    for status in (500, 404):
        receiver.answer(status)
    assert deliverer.run_once() == 1
    row = read(database, delivery)
    assert (row.status, row.attempts, row.response_status) == ("pending", 1, 500)
    assert row.error == "the receiver answered 500"
    assert deliverer.run_once() == 0, "not before its time"
    for _ in range(2):
        pass_time(database, HOUR)
        assert deliverer.run_once() == 1
    assert receiver.ids == [delivery] * 3
    assert len({request.body for request in receiver.requests}) == 1
    row = read(database, delivery)
    assert (row.status, row.attempts, row.error) == ("succeeded", 3, None)


def test_failed_once_patience_ends_and_sent_again_on_request(
    local: Settings, database: Database, receiver: Receiver
) -> None:
    deliverer = Deliverer(local.model_copy(update={"webhook_attempts": 3}), database)
    webhook = hook(database, receiver.url)
    delivery = ping(database, webhook)
    for _ in range(3):
        receiver.answer(503)
        assert deliverer.run_once() == 1
        pass_time(database, HOUR)
    assert deliverer.run_once() == 0
    row = read(database, delivery)
    assert (row.status, row.attempts, row.next_attempt_at, row.response_status) == ("failed", 3, None, 503)
    with database.session() as session:
        again = webhooks.redeliver(session, "a", webhook, delivery)
        assert (again.status, again.attempts, again.finished_at) == ("pending", 0, None)
    assert deliverer.run_once() == 1
    assert read(database, delivery).status == "succeeded"
    assert receiver.ids == [delivery] * 4


def test_back_off_lasts_about_a_day(settings: Settings) -> None:
    waits = [back_off_s(attempt, 0, settings) for attempt in range(1, settings.webhook_attempts)]
    assert 3.7 <= waits[0] <= 5
    assert all(later > 2 * earlier for earlier, later in pairwise(waits[:8]))
    assert max(waits) <= settings.webhook_backoff_max_s
    assert 20 * HOUR < sum(waits) < 29 * HOUR
    assert len({back_off_s(5, 0, settings) for _ in range(10)}) > 1, "jitter"


@pytest.mark.parametrize(
    ("status", "value", "least", "most"),
    [
        (429, "100", 100, 101),
        (503, "100", 100, 101),
        (503, "1", 3.7, 5),
        (503, "999999999999999999999999999", 21600, 21601),
        (429, "in 5000 s, as a date", 4900, 5001),
        (429, "soon", 3.7, 5),
        (429, "Mon, 99 Foo 99999 99:99:99", 3.7, 5),
        (429, "-5", 3.7, 5),
        (500, "100", 3.7, 5),
    ],
)
def test_retry_after(
    database: Database,
    deliverer: Deliverer,
    receiver: Receiver,
    status: int,
    value: str,
    least: float,
    most: float,
) -> None:
    delivery = ping(database, hook(database, receiver.url))
    if value == "in 5000 s, as a date":
        value = email.utils.formatdate(time.time() + 5000, usegmt=True)
    receiver.answer(status, Retry_After=value)
    deliverer.run_once()
    with database.session() as session:
        wait = "extract(epoch FROM next_attempt_at - last_attempt_at)"
        waits = session.execute(text(f"SELECT {wait} FROM webhook_deliveries WHERE id = :id"), {"id": delivery})
        assert least <= waits.scalar_one() <= most + 60, "the attempt itself takes a moment"


def test_redirect_is_a_failure_that_says_so(database: Database, deliverer: Deliverer, receiver: Receiver) -> None:
    with receiving() as elsewhere:
        delivery = ping(database, hook(database, receiver.url))
        receiver.answer(307, Location=elsewhere.url)
        deliverer.run_once()
        assert elsewhere.requests == []
    row = read(database, delivery)
    assert (row.status, row.response_status) == ("pending", 307)
    assert row.error == "the receiver answered 307: redirects are not followed"


def test_gone_disables_the_webhook(database: Database, deliverer: Deliverer, receiver: Receiver) -> None:
    webhook = hook(database, receiver.url)
    first, second = ping(database, webhook), ping(database, webhook)
    receiver.answer(410)
    assert deliverer.run_once() == 2
    assert receiver.ids == [first]
    assert [read(database, delivery).status for delivery in (first, second)] == ["failed", "failed"]
    assert "is disabled" in (read(database, second).error or "")
    with database.session() as session:
        row = session.get_one(Webhook, webhook)
        assert row.disabled_at is not None
        assert row.disabled_reason == "the receiver answered 410: it is gone"
    submit(database)
    assert deliverer.run_once() == 0


def test_a_name_that_now_leads_inside_is_not_called(local: Settings, database: Database, receiver: Receiver) -> None:
    """Rebinding: public when it was registered, private when it is called."""
    addresses = iter([["93.184.215.14"], ["127.0.0.1"]])
    url = f"https://hooks.example:{receiver.port}/"
    safe_http.check(url, resolve=lambda host, port: next(addresses))
    strict = local.model_copy(update={"allow_loopback_urls": False})
    delivery = ping(database, hook(database, url))
    Deliverer(strict, database, resolve=lambda host, port: next(addresses)).run_once()
    row = read(database, delivery)
    assert (row.status, row.response_status) == ("pending", None)
    assert row.error == "the host hooks.example leads to an address that is not public"
    assert receiver.requests == []


def test_no_answer_and_a_huge_one(local: Settings, database: Database, receiver: Receiver) -> None:
    deliverer = Deliverer(local.model_copy(update={"webhook_timeout_s": 0.3}), database)
    receiver.gate.clear()
    silent = ping(database, hook(database, receiver.url))
    deliverer.run_once()
    receiver.gate.set()
    assert read(database, silent).error == "no answer within 0.3 s"
    huge = ping(database, hook(database, receiver.url))
    receiver.answer(200, b"x" * 20_000_000)
    Deliverer(local, database).run_once()
    assert read(database, huge).status == "succeeded"


def test_two_at_once_deliver_once(local: Settings, database: Database, receiver: Receiver) -> None:
    hooks = {tenant: hook(database, receiver.url, tenant=tenant) for tenant in "abc"}
    queued = [ping(database, webhook, tenant=tenant) for tenant, webhook in hooks.items() for _ in range(10)]
    with running(Deliverer(local, database), Deliverer(local, database)):
        receiver.wait(len(queued))
        eventually(lambda: all(read(database, one).status == "succeeded" for one in queued), "all succeed")
    assert Counter(receiver.ids) == Counter(queued)


def test_a_sweeper_killed_in_mid_delivery(local: Settings, database: Database, receiver: Receiver) -> None:
    delivery = ping(database, hook(database, receiver.url))
    receiver.gate.clear()
    program = (
        "from service.deliveries import Deliverer; from service.session import Database;"
        f"from service.settings import Settings; url = {database.url.render_as_string(hide_password=False)!r};"
        "settings = Settings(database_url=url, allow_loopback_urls=True, webhook_timeout_s=30);"
        "Deliverer(settings, Database(url)).run_once()"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2]) as process:
        receiver.wait()
        process.send_signal(signal.SIGKILL)
    receiver.gate.set()
    deliverer = Deliverer(local, database)
    assert deliverer.run_once() == 0, "its lease still holds"
    pass_time(database, 61)
    assert deliverer.run_once() == 1
    row = read(database, delivery)
    assert (row.status, row.attempts) == ("succeeded", 2)
    assert receiver.ids == [delivery, delivery]


def test_outcome_of_a_lease_that_passed_to_another_is_not_written(local: Settings, database: Database) -> None:
    delivery = ping(database, hook(database, "https://hooks.example"))
    [late] = take(database)
    pass_time(database, 61)
    [prompt] = take(database)
    with database.session() as session:
        assert not settle(session, late, Outcome(False, 500, "late"), local)
        assert settle(session, prompt, Outcome(True, 200), local)
        assert not settle(session, prompt, Outcome(False, 500, "twice"), local)
    row = read(database, delivery)
    assert (row.status, row.response_status, row.error) == ("succeeded", 200, None)


def test_slow_receivers_hold_up_no_other_tenant(local: Settings, database: Database, receiver: Receiver) -> None:
    receiver.gate.clear()
    slow = hook(database, receiver.url)
    for _ in range(3 * SLOTS):
        ping(database, slow)
    with receiving() as quick, running(Deliverer(local, database)):
        receiver.wait(TENANT_SLOTS)
        delivery = ping(database, hook(database, quick.url, tenant="b"), tenant="b")
        quick.wait()
        eventually(lambda: read(database, delivery).status == "succeeded", "the other tenant's is delivered")
        assert len(receiver.requests) == TENANT_SLOTS
        receiver.gate.set()
        receiver.wait(3 * SLOTS - TENANT_SLOTS)


def test_slow_receivers_hold_up_no_job(local: Settings, database: Database, receiver: Receiver) -> None:
    receiver.gate.clear()
    ping(database, hook(database, receiver.url, events=("job.failed",)))
    published: list[str] = []
    sweeper = Sweeper(
        local,
        database,
        make_celery(local),
        Blobs(local.blob_store_url, database),
        publish_job=lambda job_id, queue: published.append(job_id),
    )
    with running(sweeper):
        receiver.wait()
        job_id = submit(database)
        eventually(lambda: job_id in published, "the job is dispatched while the receiver is silent")
        receiver.gate.set()


def test_a_new_delivery_is_sent_at_once(local: Settings, database: Database, receiver: Receiver) -> None:
    """The bell, not the clock: the next round would be in an hour."""
    with running(Deliverer(local.model_copy(update={"sweep_s": HOUR}), database)):
        webhook = hook(database, receiver.url)
        for _ in range(2):
            ping(database, webhook)
            receiver.wait()
        submit(database)
        receiver.wait()


def test_tenants_take_turns(database: Database) -> None:
    first, second, other = (hook(database, "https://hooks.example", tenant=tenant) for tenant in "aab")
    for webhook in (first, second):
        for _ in range(5):
            ping(database, webhook)
    mine = [ping(database, other, tenant="b") for _ in range(2)]
    taken = take(database, SLOTS)
    assert Counter(one.webhook_id for one in taken)[other] == 2
    assert len(taken) == TENANT_SLOTS + 2
    assert {one.id for one in taken} > set(mine)
    assert take(database, SLOTS) == [], "the rest waits for a place"


def test_old_deliveries_are_forgotten(database: Database, deliverer: Deliverer, receiver: Receiver) -> None:
    webhook = hook(database, receiver.url)
    old = ping(database, webhook)
    deliverer.run_once()
    pass_time(database, 10 * HOUR)
    ended, waiting = (
        ping(database, webhook),
        ping(database, hook(database, "https://hooks.example", tenant="b"), tenant="b"),
    )
    with database.session() as session:
        session.execute(
            text("UPDATE webhook_deliveries SET next_attempt_at = now() + interval '1 h' WHERE id = :id"),
            {"id": waiting},
        )
    deliverer.run_once()
    pass_time(database, HOUR)
    assert delete_old(database, older_than_s=2 * HOUR) == 1
    with database.session() as session:
        assert session.get(WebhookDelivery, old) is None
        assert session.get(WebhookDelivery, ended) is not None
        assert session.get(WebhookDelivery, waiting) is not None
    assert delete_old(database, older_than_s=0.001) == 1


def test_deliverer_outlives_a_database_that_is_away(local: Settings, database: Database, receiver: Receiver) -> None:
    webhook = hook(database, receiver.url)
    deliverer = Deliverer(local, database)
    claiming, errors = deliverer._claim, iter([ZeroDivisionError("a bug")])

    def sometimes(limit: int) -> list[Claimed]:
        for error in errors:
            raise error
        return claiming(limit)

    deliverer._claim = sometimes  # type: ignore[method-assign]
    with running(deliverer):
        ping(database, webhook)
        receiver.wait()
        with database.session() as session:
            session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                    " AND datname = current_database()"
                )
            )
        ping(database, webhook)
        receiver.wait()
