"""What webhooks are to be told, written in the transaction of the change that it tells of.

So nothing is told of a change that was rolled back, and none that was committed is forgotten.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import any_, func, literal, or_, select
from sqlalchemy.orm import Session

from service.ids import new_id
from service.models import Job, Webhook, WebhookDelivery

EVERYTHING: Final = "*"
"""Stands in a webhook's events for all of them."""


def record(session: Session, job_id: str, seq: int, change: Mapping[str, Any]) -> bool:
    """Queue a job's change of status for the tenant's webhooks that ask for it; whether there are any.

    `change` is the data of the job's status event, `seq` its number.
    """
    from service.jobs import INTERNAL_KINDS  # jobs tell of themselves through events, which end here

    event = f"job.{change['status']}"
    # A webhook found here cannot be deleted before the delivery that refers to it is written.
    asking = session.execute(
        select(Webhook.id, Job.kind, Job.metadata_.label("metadata"))
        .join(Job, Job.tenant == Webhook.tenant)
        .where(
            Job.id == job_id,
            Job.kind.not_in(INTERNAL_KINDS),
            Job.parent_id.is_(None),
            Webhook.disabled_at.is_(None),
            or_(literal(EVERYTHING) == any_(Webhook.events), literal(event) == any_(Webhook.events)),
        )
        .with_for_update(read=True, key_share=True, of=Webhook)
    ).all()
    if not asking:
        return False
    data = {
        "id": job_id,
        "kind": asking[0].kind,
        "status": change["status"],
        "seq": seq,
        "metadata": asking[0].metadata,
        "error": {"code": change["code"], "detail": change.get("detail")} if change.get("code") else None,
        "links": {"self": f"/v1/jobs/{job_id}", "events": f"/v1/jobs/{job_id}/events"},
    }
    add(session, [row.id for row in asking], event=event, data=data, job_id=job_id)
    return True


def add(
    session: Session, webhook_ids: Sequence[str], *, event: str, data: Mapping[str, Any], job_id: str | None = None
) -> Sequence[WebhookDelivery]:
    """One delivery to each webhook, due at once; the bytes of its body are settled here."""
    timestamp = session.scalars(select(func.to_jsonb(func.clock_timestamp()))).one()
    body = json.dumps({"type": event, "timestamp": timestamp, "data": data}, separators=(",", ":"))
    deliveries = [
        WebhookDelivery(id=new_id("msg"), webhook_id=webhook_id, event=event, job_id=job_id, body=body)
        for webhook_id in webhook_ids
    ]
    session.add_all(deliveries)
    session.flush()
    return deliveries
