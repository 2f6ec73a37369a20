"""Whether everything that the service stands on answers; for /readyz and `mr doctor`."""

from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from service import schema, workers
from service.blobs import Blobs
from service.errors import ServiceError
from service.queue import check_broker
from service.session import Database


@dataclass(frozen=True)
class Check:
    """One result; where `is_required` is false, the service can accept jobs without it."""

    name: str
    is_ok: bool
    detail: str
    is_required: bool = True


def check_all(database: Database, celery: Celery, blobs: Blobs) -> list[Check]:
    """Every check, in order. Without a broker or workers jobs are still accepted: they wait."""
    return [
        _check("database", lambda: _answers(database)),
        _check("migrations", lambda: _is_migrated(database)),
        _check("blobs", lambda: _is_writable(blobs)),
        _check("broker", lambda: _broker_answers(celery), is_required=False),
        _check("workers", lambda: _workers(database), is_required=False),
    ]


def is_ready(checks: list[Check]) -> bool:
    """Whether every required check passed."""
    return all(check.is_ok for check in checks if check.is_required)


def _check(name: str, probe: Callable[[], str], *, is_required: bool = True) -> Check:
    try:
        return Check(name, True, probe(), is_required)
    except ServiceError as error:
        return Check(name, False, error.detail, is_required)


def _answers(database: Database) -> str:
    database.wait_ready(timeout_s=0)
    return "answers"


def _is_migrated(database: Database) -> str:
    if not schema.is_at_head(database):
        raise ServiceError("the schema is not the one of this version: run `make migrate`")
    return "at the newest revision"


def _is_writable(blobs: Blobs) -> str:
    blobs.check()
    return "writable"


def _broker_answers(celery: Celery) -> str:
    check_broker(celery)
    return "answers"


def _workers(database: Database) -> str:
    with database.session() as session:
        queues = [worker.queue for worker in workers.alive(session)]
    if not queues:
        raise ServiceError("no worker has given a sign of life: jobs wait until one starts")
    return ", ".join(f"{queue}: {queues.count(queue)}" for queue in sorted(set(queues)))
