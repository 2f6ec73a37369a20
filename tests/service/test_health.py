"""Health checks name what is wrong; only what jobs cannot be accepted without makes the service unready."""

from service import workers
from service.blobs import Blobs
from service.health import check_all, is_ready
from service.queue import make_celery
from service.session import Database
from service.settings import Settings


def test_everything_answers(settings: Settings, database: Database, blobs: Blobs) -> None:
    with database.session() as session:
        workers.beat(session, "wk_1", queue="cpu", device="cpu", details={})
    checks = check_all(database, make_celery(settings), blobs)
    assert {check.name: check.is_ok for check in checks} == dict.fromkeys(
        ["database", "migrations", "blobs", "broker", "workers"], True
    )
    assert checks[-1].detail == "cpu: 1"


def test_jobs_are_accepted_without_broker_and_workers(settings: Settings, database: Database, blobs: Blobs) -> None:
    dead = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    checks = check_all(database, make_celery(dead), blobs)
    assert [check.name for check in checks if not check.is_ok] == ["broker", "workers"]
    assert is_ready(checks)


def test_unmigrated_database_is_not_ready(settings: Settings, empty_database_url: str, database: Database) -> None:
    empty = Database(empty_database_url)
    checks = check_all(empty, make_celery(settings), Blobs(settings.blob_store_url, empty))
    failed = {check.name: check.detail for check in checks if not check.is_ok}
    assert "migrate" in failed["migrations"]
    assert not is_ready(checks)
    empty.dispose()


def test_missing_database_is_told(settings: Settings, blobs: Blobs) -> None:
    absent = Database("postgresql://nobody@127.0.0.1:1/none")
    checks = check_all(absent, make_celery(settings), blobs)
    assert not checks[0].is_ok
    assert not is_ready(checks)
