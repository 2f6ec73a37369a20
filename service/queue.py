"""The Celery app. A message carries a job's id and nothing else: it rings, the database decides."""

from typing import Any, Final, Literal

from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from kombu.transport import TRANSPORT_ALIASES

from service.errors import BrokerUnavailable
from service.folder_broker import FOLDER_SCHEME
from service.settings import Settings

Queue = Literal["gpu", "cpu", "io"]
QUEUES: Final[tuple[Queue, ...]] = ("gpu", "cpu", "io")

RUN_JOB: Final = "worker.tasks.run_job"
"""Name of the one task; its one argument is the job's id."""

_SOCKET_TIMEOUT_S = 5

TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = "service.redis_broker:RedisTransport"


def make_celery(settings: Settings) -> Celery:
    """The app that sweepers publish with and workers consume with."""
    celery = Celery("mr")
    celery.conf.update(
        **_broker(settings),
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue="cpu",
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_pool="prefork",
        worker_soft_shutdown_timeout=90,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_timeout=_SOCKET_TIMEOUT_S,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        enable_utc=True,
    )
    return celery


def publish(celery: Celery, job_id: str, queue: str) -> None:
    """Ring once for a job; BrokerUnavailable within seconds where the broker does not take it."""
    try:
        celery.send_task(RUN_JOB, args=(job_id,), queue=queue, retry=False)
    except (OperationalError, KombuError, OSError) as error:
        raise BrokerUnavailable(f"the broker does not take messages: {error}") from error


def check_broker(celery: Celery) -> None:
    """BrokerUnavailable where the broker does not answer."""
    try:
        with celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_SOCKET_TIMEOUT_S)
            connection.default_channel.close()
    except (OperationalError, KombuError, OSError) as error:
        raise BrokerUnavailable(f"the broker does not answer: {error}") from error


def _broker(settings: Settings) -> dict[str, Any]:
    if settings.broker_url is None:
        folder = settings.broker_dir
        for path in (folder / "messages", folder / "control"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return {
            "broker_url": f"{FOLDER_SCHEME}://localhost",
            "broker_transport_options": {
                "data_folder_in": str(folder / "messages"),
                "data_folder_out": str(folder / "messages"),
                "control_folder": str(folder / "control"),
                "polling_interval": 0.05,
            },
        }
    options: dict[str, Any] = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
    if settings.broker_url.startswith("redis"):
        options |= {
            "socket_timeout": _SOCKET_TIMEOUT_S,
            "socket_connect_timeout": _SOCKET_TIMEOUT_S,
            "socket_keepalive": True,
            "health_check_interval": 25,
        }
    return {"broker_url": settings.broker_url, "broker_transport_options": options, "broker_heartbeat": 30}
