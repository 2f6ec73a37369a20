"""Both kinds of broker deliver to a real worker; a dead one is told within seconds."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.errors import BrokerUnavailable
from service.queue import check_broker, make_celery, publish
from service.settings import Settings

_WORKER = """
import sys
from pathlib import Path
from service.queue import RUN_JOB, make_celery
from service.settings import load_settings

celery = make_celery(load_settings())

@celery.task(name=RUN_JOB)
def run_job(job_id):
    Path(sys.argv[1], job_id).touch()

celery.worker_main(["worker", "--queues=cpu", "--without-gossip", "--without-mingle", "--loglevel=WARNING"])
"""


@pytest.mark.integration
@pytest.mark.parametrize("broker", ["folder", "redis"])
def test_a_worker_gets_what_is_published(broker: str, settings: Settings, tmp_path: Path, request) -> None:
    url = request.getfixturevalue("redis_url") if broker == "redis" else None
    settings = settings.model_copy(update={"broker_url": url})
    done = tmp_path / "done"
    done.mkdir()
    celery = make_celery(settings)
    publish(celery, "job_before", "cpu")
    environment = {**os.environ, "MR_DATA_DIR": str(settings.data_dir), **({"MR_BROKER_URL": url} if url else {})}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", _WORKER, str(done)], env=environment) as worker:
        try:
            _wait_for(done / "job_before", 30)
            published_at = time.monotonic()
            publish(celery, "job_after", "cpu")
            publish(celery, "job_elsewhere", "gpu")
            _wait_for(done / "job_after", 10)
            assert time.monotonic() - published_at < 5
        finally:
            worker.terminate()
    assert sorted(path.name for path in done.iterdir()) == ["job_after", "job_before"]
    celery.close()


def test_dead_broker_is_told_within_seconds(settings: Settings) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    celery = make_celery(settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{port}/0"}))
    started_at = time.monotonic()
    for attempt in (lambda: publish(celery, "job_1", "cpu"), lambda: check_broker(celery)):
        with pytest.raises(BrokerUnavailable):
            attempt()
    assert time.monotonic() - started_at < 10
    celery.close()


def test_silent_broker_is_told_within_seconds(settings: Settings) -> None:
    with socket.socket() as black_hole:
        black_hole.bind(("127.0.0.1", 0))
        black_hole.listen()
        url = f"redis://127.0.0.1:{black_hole.getsockname()[1]}/0"
        celery = make_celery(settings.model_copy(update={"broker_url": url}))
        started_at = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            publish(celery, "job_1", "cpu")
        assert time.monotonic() - started_at < 30
        celery.close()


def test_folder_without_room_is_told(settings: Settings) -> None:
    celery = make_celery(settings)
    check_broker(celery)
    messages = settings.broker_dir / "messages"
    messages.rmdir()
    messages.touch()
    with pytest.raises(BrokerUnavailable):
        publish(celery, "job_1", "cpu")
    celery.close()


def test_messages_in_the_folder_are_never_seen_half_written(settings: Settings, monkeypatch) -> None:
    celery = make_celery(settings)
    seen = []
    write_text = Path.write_text

    def slow_write(path: Path, content: str, **options: object) -> int:
        seen.append([entry.name for entry in path.parent.glob("*.cpu.msg")])
        return write_text(path, content)

    monkeypatch.setattr(Path, "write_text", slow_write)
    publish(celery, "job_1", "cpu")
    assert seen == [[]]
    assert len(list((settings.broker_dir / "messages").glob("*.cpu.msg"))) == 1
    celery.close()


def _wait_for(path: Path, timeout_s: float) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < give_up_at, f"{path.name} was not delivered"
        time.sleep(0.05)
