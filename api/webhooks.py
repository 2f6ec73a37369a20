"""Webhooks: where the tenant is told of its jobs, and what was sent there."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import PageOf, PartsOf, Reader, SessionOf, Writer, is_storable
from api.errors import InvalidRequest
from api.responses import DeliveryAnswer, ListOf, NewWebhookAnswer, WebhookAnswer, list_of
from service import safe_http, webhooks
from service.webhooks import EventName

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


class NewWebhook(BaseModel):
    """Where to tell of what."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=2048, description="https, at a public address, port 443 or from 1024 up.")
    events: Annotated[list[EventName], Field(min_length=1, max_length=20, description="`*` is all of them.")] = ["*"]
    description: str | None = Field(None, max_length=500)


@router.post("", status_code=201)
def create_webhook(
    body: NewWebhook, response: Response, session: SessionOf, parts: PartsOf, caller: Writer
) -> NewWebhookAnswer:
    """A new webhook. `secret`, with which deliveries are signed, is shown in this answer and never again.

    The service keeps the secret as it is, since it signs with it.
    """
    for param, text in (("url", body.url), ("description", body.description or "")):
        if not is_storable(text):
            raise InvalidRequest(f"{param} holds a NUL character or half a surrogate pair", param=param)
    safe_http.check(body.url, allow_loopback=parts.settings.allow_loopback_urls)
    row = webhooks.create(
        session,
        tenant=caller.tenant,
        url=body.url,
        events=body.events,
        description=body.description,
        max_webhooks=parts.settings.max_webhooks,
    )
    response.headers["Location"] = f"/v1/webhooks/{row.id}"
    return NewWebhookAnswer(**WebhookAnswer.of(row).model_dump(), secret=row.secret)


@router.get("")
def list_webhooks(session: SessionOf, caller: Reader, page: PageOf) -> ListOf[WebhookAnswer]:
    """The tenant's webhooks, newest first."""
    rows, has_more = webhooks.list_webhooks(session, caller.tenant, after=page.after, limit=page.limit)
    return list_of(rows, WebhookAnswer.of, has_more=has_more)


@router.get("/{webhook_id}")
def read_webhook(webhook_id: str, session: SessionOf, caller: Reader) -> WebhookAnswer:
    """A webhook, without its secret."""
    return WebhookAnswer.of(webhooks.get(session, caller.tenant, webhook_id))


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(webhook_id: str, session: SessionOf, caller: Writer) -> None:
    """Forget a webhook and its deliveries, those not sent yet included."""
    webhooks.delete(session, caller.tenant, webhook_id)


@router.post("/{webhook_id}/test", status_code=202)
def test_webhook(webhook_id: str, session: SessionOf, caller: Writer) -> DeliveryAnswer:
    """Queue a delivery of the event `webhook.test`; 409 where the webhook is disabled."""
    return DeliveryAnswer.of(webhooks.queue_test(session, caller.tenant, webhook_id))


@router.get("/{webhook_id}/deliveries")
def list_deliveries(webhook_id: str, session: SessionOf, caller: Reader, page: PageOf) -> ListOf[DeliveryAnswer]:
    """What was or is to be sent, newest first; forgotten some days after its end."""
    rows, has_more = webhooks.list_deliveries(session, caller.tenant, webhook_id, after=page.after, limit=page.limit)
    return list_of(rows, DeliveryAnswer.of, has_more=has_more)


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202)
def redeliver(webhook_id: str, delivery_id: str, session: SessionOf, caller: Writer) -> DeliveryAnswer:
    """Send a delivery again at once, under the same id; 409 while it is being sent."""
    return DeliveryAnswer.of(webhooks.redeliver(session, caller.tenant, webhook_id, delivery_id))
