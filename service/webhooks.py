"""A tenant's webhooks and what was sent to them, signed as https://www.standardwebhooks.com specifies."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final, Literal

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service import events, outbox
from service.errors import Conflict, NotFound, QuotaExceeded, WebhookDisabled
from service.ids import new_id
from service.models import Webhook, WebhookDelivery
from service.pages import count, page

EventName = Literal["*", "job.queued", "job.running", "job.cancelling", "job.succeeded", "job.failed", "job.cancelled"]
"""What a webhook can ask for: a change of a job to that status, or everything."""

TEST: Final = "webhook.test"
"""The event that only POST /test makes; it needs not to be asked for."""

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the prefix of the specification
_SECRET_BYTES: Final = 32


def create(
    session: Session,
    *,
    tenant: str,
    url: str,
    events: Sequence[str],
    description: str | None = None,
    max_webhooks: int | None = None,
) -> Webhook:
    """A new webhook with a secret of its own; the caller has checked the URL."""
    if max_webhooks is not None:
        # Two requests at once wait for each other here, instead of both finding room.
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"webhooks of {tenant}", 0))))
        existing = count(session, select(Webhook.id).filter_by(tenant=tenant))
        if existing >= max_webhooks:
            raise QuotaExceeded(f"there are {existing} webhooks already, and {max_webhooks} is the limit")
    webhook = Webhook(
        id=new_id("wh"),
        tenant=tenant,
        url=url,
        events=[outbox.EVERYTHING] if outbox.EVERYTHING in events else list(dict.fromkeys(events)),
        description=description,
        secret=_SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode(),
    )
    session.add(webhook)
    session.flush()
    session.refresh(webhook)
    return webhook


def get(session: Session, tenant: str, webhook_id: str) -> Webhook:
    """The tenant's webhook; NotFound for another's."""
    webhook = session.scalars(select(Webhook).filter_by(tenant=tenant, id=webhook_id)).one_or_none()
    if webhook is None:
        raise NotFound(f"there is no webhook {webhook_id}")
    return webhook


def list_webhooks(
    session: Session, tenant: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[Webhook], bool]:
    """The tenant's webhooks, newest first, and whether there are more."""
    return page(session, select(Webhook).filter_by(tenant=tenant), Webhook, after=after, limit=limit)


def delete(session: Session, tenant: str, webhook_id: str) -> None:
    """Forget a webhook and what was or was to be sent to it."""
    get(session, tenant, webhook_id)
    # The many rows first: a job that changes meanwhile waits for the webhook's row, and that only for a moment.
    session.execute(sql_delete(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id))
    session.execute(sql_delete(Webhook).where(Webhook.id == webhook_id))


def queue_test(session: Session, tenant: str, webhook_id: str) -> WebhookDelivery:
    """Queue a delivery that tells of nothing; WebhookDisabled where none would be sent."""
    webhook = _enabled(session, tenant, webhook_id)
    [delivery] = outbox.add(session, [webhook.id], event=TEST, data={"webhook": webhook.id})
    return _due(session, delivery)


def list_deliveries(
    session: Session, tenant: str, webhook_id: str, *, after: str | None = None, limit: int = 20
) -> tuple[Sequence[WebhookDelivery], bool]:
    """What was or is to be sent to the tenant's webhook, newest first, and whether there is more."""
    webhook = get(session, tenant, webhook_id)
    query = select(WebhookDelivery).filter_by(webhook_id=webhook.id)
    return page(session, query, WebhookDelivery, after=after, limit=limit)


def redeliver(session: Session, tenant: str, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Send a delivery again at once, under the same id and with every attempt ahead of it.

    Conflict while it is being sent, WebhookDisabled where nothing is sent any more.
    """
    webhook = _enabled(session, tenant, webhook_id)
    is_leased = WebhookDelivery.lease_until > func.clock_timestamp()
    query = select(WebhookDelivery, is_leased).where(
        WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.id == delivery_id
    )
    found = session.execute(query.with_for_update()).one_or_none()
    if found is None:
        raise NotFound(f"there is no delivery {delivery_id} of {webhook_id}")
    if found[1]:
        raise Conflict(f"{delivery_id} is being sent at this moment")
    again = {"status": "pending", "attempts": 0, "next_attempt_at": func.clock_timestamp(), "finished_at": None}
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id)
        .values(**again, lease_until=None)
        .execution_options(synchronize_session=False)
    )
    return _due(session, found[0])


def sign(secret: str, delivery_id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature: HMAC-SHA256 over id, timestamp and body."""
    key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
    digest = hmac.new(key, f"{delivery_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _enabled(session: Session, tenant: str, webhook_id: str) -> Webhook:
    webhook = get(session, tenant, webhook_id)
    if webhook.disabled_at is not None:
        raise WebhookDisabled(f"{webhook_id} is disabled: {webhook.disabled_reason}")
    return webhook


def _due(session: Session, delivery: WebhookDelivery) -> WebhookDelivery:
    events.notify(session, events.WEBHOOKS_CHANNEL, delivery.webhook_id)
    session.refresh(delivery)
    return delivery
