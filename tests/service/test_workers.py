"""Heartbeats of workers, and the choice of a queue that follows from them."""

from sqlalchemy import text

from service import workers
from service.session import Database


def beat(database: Database, worker_id: str, queue: str) -> None:
    with database.session() as session:
        workers.beat(session, worker_id, queue=queue, device=queue, details={"threads": 2})


def silence(database: Database, seconds: int) -> None:
    with database.session() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = now() - make_interval(secs => :s)"), {"s": seconds})


def test_worker_is_alive_while_it_beats(database: Database) -> None:
    beat(database, "wk_1", "cpu")
    silence(database, 61)
    with database.session() as session:
        assert list(workers.alive(session)) == []
    beat(database, "wk_1", "cpu")
    with database.session() as session:
        assert [worker.id for worker in workers.alive(session, "cpu")] == ["wk_1"]
        assert list(workers.alive(session, "gpu")) == []
        workers.leave(session, "wk_1")
        assert list(workers.alive(session)) == []


def test_auto_is_gpu_where_one_is_alive(database: Database) -> None:
    def choices() -> dict[str, str]:
        with database.session() as session:
            return {device: workers.choose_queue(session, device) for device in ("auto", "cpu", "gpu")}

    assert choices() == {"auto": "cpu", "cpu": "cpu", "gpu": "gpu"}
    beat(database, "wk_1", "gpu")
    assert choices() == {"auto": "gpu", "cpu": "cpu", "gpu": "gpu"}
    with database.session() as session:
        assert workers.choose_queue(session, "auto", precision="bfloat16") == "cpu"
    silence(database, 61)
    assert choices()["auto"] == "cpu"


def test_workers_gone_for_long_are_forgotten(database: Database) -> None:
    beat(database, "wk_1", "cpu")
    silence(database, 4000)
    beat(database, "wk_2", "cpu")
    with database.session() as session:
        assert workers.forget_gone(session) == 1
        assert [worker.id for worker in workers.alive(session)] == ["wk_2"]
