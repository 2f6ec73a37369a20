"""Sends what the outbox holds: at least once, never twice at the same time, with patience for receivers that are away.

Any number of sweepers deliver at once. Each claims with a lease that outlasts the attempt, so one that is killed costs
a pause, and each passes over what another has locked.
"""

import email.utils
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from sqlalchemy import BigInteger, ColumnElement, DateTime, and_, cast, func, or_, select, true, type_coerce, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.orm import Session, aliased

from mr_core import __version__
from service import safe_http
from service.errors import RemoteUnavailable, ServiceError, TransientError, UrlNotAllowed
from service.events import WEBHOOKS_CHANNEL, Listener, wait_for_bell
from service.models import Webhook, WebhookDelivery
from service.session import Database
from service.settings import Settings
from service.webhooks import sign

SLOTS: Final = 8
"""Deliveries that one sweeper sends at once."""
TENANT_SLOTS: Final = 4
"""Deliveries of one tenant under way at once, so that receivers that hang hold up nobody else's."""

_LEASE_BEYOND_TIMEOUT_S: Final = 30.0
_GROWTH: Final = 3.0
_JITTER: Final = 0.25
_MAX_ANSWER_BYTES: Final = 65_536
_BATCH: Final = 1000
_GONE: Final = 410
_ASK_FOR_PATIENCE: Final = frozenset({429, 503})

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Claimed:
    """The right to send one delivery once, until its lease ends."""

    id: str
    webhook_id: str
    url: str
    secret: str
    body: str
    attempt: int
    timestamp: int
    lease_until: datetime
    disabled_reason: str | None


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt."""

    is_taken: bool
    status: int | None = None
    error: str | None = None
    retry_after_s: float = 0.0
    is_final: bool = False


class Deliverer:
    """Sends deliveries from threads of its own, so that slow receivers stop nothing else that a sweeper does."""

    def __init__(
        self, settings: Settings, database: Database, *, resolve: safe_http.Resolve = safe_http.resolve_by_system
    ) -> None:
        self._settings = settings
        self._database = database
        self._resolve = resolve
        self._free = SLOTS
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Deliver as deliveries come and retries fall due, until told to stop; what is being sent is sent."""
        bell = threading.Event()
        listener = Listener(self._database, WEBHOOKS_CHANNEL)
        with listener.subscribed(None, bell.set), ThreadPoolExecutor(SLOTS, "webhook") as threads:
            listener.start()
            while not stop.is_set():
                bell.clear()
                try:
                    claimed_at = time.monotonic()
                    for claimed in self._claim(SLOTS):
                        threads.submit(self._send, claimed, claimed_at, bell)
                except TransientError as error:
                    _log.warning("deliveries interrupted", code=error.code, error=error.detail)
                except Exception:
                    _log.exception("deliveries failed")
                wait_for_bell(bell, stop, time.monotonic() + self._settings.sweep_s)
            listener.stop()

    def run_once(self) -> int:
        """Send what is due now, one after the other; how many."""
        sent = 0
        while claimed := self._claim(1):
            self._send(claimed[0], time.monotonic(), threading.Event())
            sent += 1
        return sent

    def _claim(self, limit: int) -> list[Claimed]:
        lease_s = self._settings.webhook_timeout_s + _LEASE_BEYOND_TIMEOUT_S
        with self._lock, self._database.session() as session:
            claimed = claim(session, limit=min(limit, self._free), lease_s=lease_s)
            self._free -= len(claimed)
        return claimed

    def _send(self, claimed: Claimed, claimed_at: float, bell: threading.Event) -> None:
        log = _log.bind(webhook=claimed.webhook_id, delivery=claimed.id, attempt=claimed.attempt)
        try:
            if time.monotonic() - claimed_at > _LEASE_BEYOND_TIMEOUT_S:  # a process that was stopped meanwhile
                log.warning("too late to send: the lease would end first")
                return
            outcome = self._attempt(claimed)
            with self._database.session() as session:
                is_mine = settle(session, claimed, outcome, self._settings)
            log.info("webhook sent", status=outcome.status, error=outcome.error, is_mine=is_mine)
        except ServiceError as error:
            log.warning("outcome of a delivery lost, it is sent again", code=error.code, error=error.detail)
        except Exception:
            log.exception("delivery failed")
        finally:
            with self._lock:
                self._free += 1
            bell.set()

    def _attempt(self, claimed: Claimed) -> Outcome:
        if claimed.disabled_reason is not None:
            return Outcome(False, error=f"the webhook is disabled: {claimed.disabled_reason}", is_final=True)
        body = claimed.body.encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"mr-service/{__version__}",
            "webhook-id": claimed.id,
            "webhook-timestamp": str(claimed.timestamp),
            "webhook-signature": sign(claimed.secret, claimed.id, claimed.timestamp, body),
        }
        try:
            answer = safe_http.request(
                "POST",
                claimed.url,
                headers=headers,
                content=body,
                timeout_s=self._settings.webhook_timeout_s,
                max_answer_bytes=_MAX_ANSWER_BYTES,
                allow_loopback=self._settings.allow_loopback_urls,
                resolve=self._resolve,
            )
        except (UrlNotAllowed, RemoteUnavailable) as error:
            return Outcome(False, error=error.detail)
        return _judge(answer)


def claim(session: Session, *, limit: int, lease_s: float) -> list[Claimed]:
    """Take what is due, the tenants in turn, for `lease_s`; at most `limit`."""
    if limit <= 0:
        return []
    is_due = and_(
        WebhookDelivery.status == "pending",
        WebhookDelivery.next_attempt_at <= func.clock_timestamp(),
        or_(WebhookDelivery.lease_until.is_(None), WebhookDelivery.lease_until < func.clock_timestamp()),
    )
    # Some of each webhook and not all that is due: a receiver that was away for hours leaves a long queue.
    due = (
        select(WebhookDelivery.id, WebhookDelivery.next_attempt_at)
        .where(WebhookDelivery.webhook_id == Webhook.id, is_due)
        .order_by(WebhookDelivery.next_attempt_at)
        .limit(TENANT_SLOTS)
        .correlate(Webhook)
        .lateral()
    )
    busy, owner = aliased(WebhookDelivery), aliased(Webhook)
    under_way = (
        select(owner.tenant, func.count().label("n"))
        .join(busy, busy.webhook_id == owner.id)
        .where(busy.lease_until > func.clock_timestamp())
        .group_by(owner.tenant)
        .subquery()
    )
    order = func.row_number().over(partition_by=Webhook.tenant, order_by=(due.c.next_attempt_at, due.c.id))
    ranked = (
        select(due.c.id, due.c.next_attempt_at, (order + func.coalesce(under_way.c.n, 0)).label("turn"))
        .select_from(Webhook)
        .join(due, true())
        .outerjoin(under_way, under_way.c.tenant == Webhook.tenant)
        .subquery()
    )
    first = (
        select(ranked.c.id)
        .where(ranked.c.turn <= TENANT_SLOTS)
        .order_by(ranked.c.turn, ranked.c.next_attempt_at, ranked.c.id)
        .limit(limit)
    )
    # Another sweeper may hold some of these rows, or have taken them a moment ago.
    free = select(WebhookDelivery.id).where(WebhookDelivery.id.in_(session.scalars(first).all()), is_due)
    mine = session.scalars(free.with_for_update(skip_locked=True)).all()
    taken = session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(mine), WebhookDelivery.webhook_id == Webhook.id)
        .values(
            attempts=WebhookDelivery.attempts + 1,
            lease_until=_after(lease_s),
            last_attempt_at=func.clock_timestamp(),
        )
        .returning(
            WebhookDelivery.id,
            WebhookDelivery.webhook_id,
            Webhook.url,
            Webhook.secret,
            WebhookDelivery.body,
            WebhookDelivery.attempts,
            cast(func.extract("epoch", func.clock_timestamp()), BigInteger),
            type_coerce(WebhookDelivery.lease_until, DateTime(timezone=True)),
            Webhook.disabled_reason,
        )
        .execution_options(synchronize_session=False)
    )
    return [Claimed(*row) for row in taken]


def settle(session: Session, claimed: Claimed, outcome: Outcome, settings: Settings) -> bool:
    """Write down what came of an attempt, unless its lease has passed to another; whether it was written."""
    values: dict[str, Any] = {"lease_until": None, "response_status": outcome.status, "error": outcome.error}
    if outcome.is_taken or outcome.is_final or claimed.attempt >= settings.webhook_attempts:
        ended = {"next_attempt_at": None, "finished_at": func.clock_timestamp()}
        values |= {"status": "succeeded" if outcome.is_taken else "failed", **ended}
    else:
        values["next_attempt_at"] = _after(back_off_s(claimed.attempt, outcome.retry_after_s, settings))
    # The lease only grows, so its end tells one claim from the next.
    mine = session.scalars(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == claimed.id, WebhookDelivery.lease_until == claimed.lease_until)
        .values(values)
        .returning(WebhookDelivery.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if outcome.status == _GONE:
        session.execute(
            update(Webhook)
            .where(Webhook.id == claimed.webhook_id, Webhook.disabled_at.is_(None))
            .values(disabled_at=func.clock_timestamp(), disabled_reason=outcome.error)
            .execution_options(synchronize_session=False)
        )
    return mine is not None


def back_off_s(attempt: int, retry_after_s: float, settings: Settings) -> float:
    """Seconds from an attempt (the first is 1) to the next: three times the last, somewhat spread, or as asked for."""
    longest = settings.webhook_backoff_max_s
    regular = min(longest, settings.webhook_backoff_s * _GROWTH ** (attempt - 1))
    spread = random.uniform(1 - _JITTER, 1)  # noqa: S311 - spreads load, guards nothing
    return max(regular * spread, min(retry_after_s, longest))


def delete_old(database: Database, *, older_than_s: float) -> int:
    """Forget deliveries that ended so long ago; how many."""
    removed = 0
    while True:
        with database.session() as session:
            old = (
                select(WebhookDelivery.id)
                .where(WebhookDelivery.status != "pending", WebhookDelivery.finished_at < _after(-older_than_s))
                .limit(_BATCH)
                .with_for_update(skip_locked=True)
            )
            ids = session.scalars(old).all()
            session.execute(sql_delete(WebhookDelivery).where(WebhookDelivery.id.in_(ids)))
        removed += len(ids)
        if len(ids) < _BATCH:
            return removed


def _judge(answer: safe_http.Answer) -> Outcome:
    status = answer.status
    if 200 <= status < 300:
        return Outcome(True, status)
    if 300 <= status < 400:
        return Outcome(False, status, f"the receiver answered {status}: redirects are not followed")
    if status == _GONE:
        return Outcome(False, status, "the receiver answered 410: it is gone", is_final=True)
    patience_s = _retry_after_s(answer.headers.get("retry-after", "")) if status in _ASK_FOR_PATIENCE else 0.0
    return Outcome(False, status, f"the receiver answered {status}", retry_after_s=patience_s)


def _retry_after_s(value: str) -> float:
    """The header as seconds from now, which may also be a date; 0 where it is neither."""
    if value.strip().isascii() and value.strip().isdigit():
        return float(value[:20])
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _after(seconds: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
