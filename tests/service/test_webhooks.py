"""Webhooks of a tenant: their limit, their signatures, and sending again."""

import base64
import hashlib
import hmac
import threading
import time

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook as Verifier

from service import webhooks
from service.errors import Conflict, NotFound, QuotaExceeded, WebhookDisabled
from service.session import Database


def create(database: Database, **values: object) -> str:
    with database.session() as session:
        options = {"tenant": "a", "url": "https://hooks.example", "events": ["*"], **values}
        return webhooks.create(session, **options).id  # type: ignore[arg-type]


def test_each_secret_is_long_and_its_own(database: Database) -> None:
    with database.session() as session:
        secrets = {webhooks.get(session, "a", create(database)).secret for _ in range(3)}
    assert len(secrets) == 3
    for secret in secrets:
        prefix, _, key = secret.partition("_")
        assert (prefix, len(base64.b64decode(key, validate=True))) == ("whsec", 32)


def test_events_are_kept_once(database: Database) -> None:
    with database.session() as session:
        for asked, kept in ((["job.failed", "job.failed"], ["job.failed"]), (["job.failed", "*"], ["*"])):
            assert webhooks.get(session, "a", create(database, events=asked)).events == kept


def test_limit_holds_for_requests_at_once(database: Database) -> None:
    refused: list[str] = []

    def attempt() -> None:
        try:
            create(database, max_webhooks=3)
        except QuotaExceeded as error:
            refused.append(error.detail)

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == ["there are 3 webhooks already, and 3 is the limit"] * 3
    create(database, tenant="b", max_webhooks=3)


def test_signature_is_that_of_the_specification() -> None:
    """The example of the specification's reference libraries."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    signature = webhooks.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_signature_by_hand_and_by_the_reference_library() -> None:
    key, body, now = bytes(range(32)), '{"type":"job.succeeded","data":{"name":"ü"}}'.encode(), int(time.time())
    secret = "whsec_" + base64.b64encode(key).decode()
    signature = webhooks.sign(secret, "msg_1", now, body)
    by_hand = hmac.new(key, b"msg_1." + str(now).encode() + b"." + body, hashlib.sha256).digest()
    assert signature == "v1," + base64.b64encode(by_hand).decode()
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": signature}
    assert Verifier(secret).verify(body, headers)["type"] == "job.succeeded"


def test_another_tenants_webhook_is_not_found(database: Database) -> None:
    webhook = create(database)
    with database.session() as session:
        delivery = webhooks.queue_test(session, "a", webhook).id
        for refused in (
            lambda: webhooks.get(session, "b", webhook),
            lambda: webhooks.delete(session, "b", webhook),
            lambda: webhooks.queue_test(session, "b", webhook),
            lambda: webhooks.list_deliveries(session, "b", webhook),
            lambda: webhooks.redeliver(session, "b", webhook, delivery),
            lambda: webhooks.redeliver(session, "a", webhook, "msg_none"),
        ):
            with pytest.raises(NotFound):
                refused()
        assert webhooks.list_webhooks(session, "b") == ([], False)


def test_a_delivery_belongs_to_its_webhook(database: Database) -> None:
    first, second = create(database), create(database)
    with database.session() as session:
        delivery = webhooks.queue_test(session, "a", first).id
        with pytest.raises(NotFound):
            webhooks.redeliver(session, "a", second, delivery)


def test_deleting_takes_the_deliveries_along(database: Database) -> None:
    webhook = create(database)
    with database.session() as session:
        webhooks.queue_test(session, "a", webhook)
        webhooks.delete(session, "a", webhook)
        assert session.execute(text("SELECT count(*) FROM webhook_deliveries")).scalar() == 0


def test_a_delivery_under_way_is_not_sent_again(database: Database) -> None:
    webhook = create(database)
    with database.session() as session:
        delivery = webhooks.queue_test(session, "a", webhook).id
        session.execute(text("UPDATE webhook_deliveries SET lease_until = now() + interval '1 minute'"))
    with database.session() as session, pytest.raises(Conflict, match="is being sent at this moment"):
        webhooks.redeliver(session, "a", webhook, delivery)


def test_disabled_webhook_sends_nothing_more(database: Database) -> None:
    webhook = create(database)
    with database.session() as session:
        delivery = webhooks.queue_test(session, "a", webhook).id
        session.execute(text("UPDATE webhooks SET disabled_at = now(), disabled_reason = 'it is gone'"))
    with database.session() as session:
        for refused in (
            lambda: webhooks.queue_test(session, "a", webhook),
            lambda: webhooks.redeliver(session, "a", webhook, delivery),
        ):
            with pytest.raises(WebhookDisabled, match="it is gone"):
                refused()
