"""What is told of a job is committed with the change, or not at all."""

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select, text

from service import attempts, datasets, events, jobs, webhooks
from service.models import JOB_STATUSES, WebhookDelivery
from service.session import Database
from service.settings import Settings
from tests.service.acting import LEASE_S, claim, make_sweeper, move_clock, start, submit


def hook(database: Database, *asked: str, tenant: str = "a") -> str:
    with database.session() as session:
        return webhooks.create(session, tenant=tenant, url="https://hooks.example", events=asked or ["*"]).id


def queued(database: Database, webhook: str) -> Sequence[WebhookDelivery]:
    with database.session() as session:
        query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook)
        return session.scalars(query.order_by(WebhookDelivery.created_at, WebhookDelivery.id)).all()


def told(database: Database, webhook: str) -> list[dict[str, Any]]:
    return [json.loads(delivery.body) for delivery in queued(database, webhook)]


def kinds(database: Database, webhook: str) -> list[str]:
    return [delivery.event for delivery in queued(database, webhook)]


def test_a_job_from_submission_to_success(database: Database) -> None:
    webhook = hook(database)
    claimed = start(database, metadata={"team": "a"})
    with database.session() as session:
        attempts.finish_succeeded(session, claimed, {"adapter": "ad_1", "large": "x" * 1000})
    messages = told(database, webhook)
    assert [message["type"] for message in messages] == ["job.queued", "job.running", "job.succeeded"]
    assert [message["data"]["seq"] for message in messages] == [1, 2, 3]
    last = messages[-1]
    job_id = claimed.job_id
    assert last["data"] == {
        "id": job_id,
        "kind": "diagnose",
        "status": "succeeded",
        "seq": 3,
        "metadata": {"team": "a"},
        "error": None,
        "links": {"self": f"/v1/jobs/{job_id}", "events": f"/v1/jobs/{job_id}/events"},
    }
    assert last["timestamp"].startswith("20")
    assert last["timestamp"].endswith("+00:00")


def test_a_job_that_fails_cancels_or_is_lost(settings: Settings, database: Database) -> None:
    webhook = hook(database)
    failed = start(database)
    with database.session() as session:
        attempts.finish_failed(session, failed, "diverged", "the loss stopped being finite")
    assert told(database, webhook)[-1]["data"]["error"] == {
        "code": "diverged",
        "detail": "the loss stopped being finite",
    }
    stopped = start(database)
    with database.session() as session:
        jobs.request_cancel(session, "a", stopped.job_id)
        attempts.finish_cancelled(session, stopped)
    assert kinds(database, webhook)[-2:] == ["job.cancelling", "job.cancelled"]
    lost = start(database)
    move_clock(database, LEASE_S + 1)
    make_sweeper(settings, database).run_once()
    last = told(database, webhook)[-1]["data"]
    assert (last["id"], last["status"], last["error"]["code"]) == (lost.job_id, "queued", "worker_lost")


@pytest.mark.parametrize("change", ["submit", "claim", "cancel", "finish"])
def test_nothing_is_told_of_what_was_rolled_back(database: Database, change: str) -> None:
    waiting, running = submit(database), start(database)
    webhook = hook(database)
    with suppress(ZeroDivisionError), database.session() as session:
        if change == "submit":
            jobs.create_job(session, tenant="a", kind="diagnose", spec={}, queue="cpu")
        elif change == "claim":
            attempts.claim(session, waiting, owner="w", lease_s=LEASE_S, environment={})
        elif change == "cancel":
            jobs.request_cancel(session, "a", running.job_id)
        else:
            attempts.finish_succeeded(session, running, {})
        assert session.scalars(select(WebhookDelivery.event)).all(), "it would have been told"
        raise ZeroDivisionError
    assert queued(database, webhook) == []


def test_only_what_was_asked_for(database: Database) -> None:
    ends, starts = hook(database, "job.succeeded", "job.failed"), hook(database, "job.running")
    strange = hook(database, tenant="b")
    claimed = start(database)
    with database.session() as session:
        events.append(session, claimed.job_id, "message", {"status": "succeeded"})
        attempts.finish_succeeded(session, claimed, {})
    assert (kinds(database, ends), kinds(database, starts)) == (["job.succeeded"], ["job.running"])
    assert queued(database, strange) == []


def test_internal_jobs_are_not_told_of(database: Database) -> None:
    webhook = hook(database)
    with database.session() as session:
        datasets.create(session, tenant="a", name="d", modality="image", sha256="0" * 64, size_bytes=1)
    assert queued(database, webhook) == []


def test_disabled_webhooks_are_told_nothing(database: Database) -> None:
    webhook = hook(database)
    with database.session() as session:
        session.execute(text("UPDATE webhooks SET disabled_at = now(), disabled_reason = 'gone'"))
    submit(database)
    assert queued(database, webhook) == []


def test_every_status_can_be_asked_for() -> None:
    names = set(webhooks.EventName.__args__)  # type: ignore[attr-defined]
    assert names == {"*", *(f"job.{status}" for status in JOB_STATUSES)}


def test_a_webhook_that_is_being_deleted_fails_no_job(database: Database) -> None:
    gone, kept = hook(database), hook(database)
    job_id = submit(database)
    results: list[object] = []
    with database.session() as session:
        webhooks.delete(session, "a", gone)
        thread = threading.Thread(target=lambda: results.append(claim(database, job_id)))
        thread.start()
        while not _is_waiting(database):
            assert thread.is_alive()
    thread.join(timeout=10)
    assert len(results) == 1
    assert results[0] is not None
    assert kinds(database, kept)[-1] == "job.running"


def _is_waiting(database: Database) -> bool:
    with database.session() as session:
        return session.execute(text("SELECT 1 FROM pg_locks WHERE NOT granted")).first() is not None


def test_a_job_can_be_deleted_before_it_is_told_of(database: Database) -> None:
    webhook = hook(database, "job.cancelled")
    job_id = submit(database)
    with database.session() as session:
        jobs.request_cancel(session, "a", job_id)
        jobs.delete(session, "a", job_id)
    assert kinds(database, webhook) == ["job.cancelled"]
