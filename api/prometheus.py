"""What /metrics tells: requests from memory, the queue from the database."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.models import JOB_STATUSES, Job, WorkerHeartbeat

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Prometheus:
    """The instruments of one app, in a registry of their own."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("mr_http_requests", "Requests answered.", labels, registry=self.registry)
        self._seconds = Histogram(
            "mr_http_request_seconds",
            "Time to the last byte of the answer.",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._uploaded = Counter("mr_uploaded_bytes", "Bytes of files received.", registry=self.registry)
        self._jobs = Gauge("mr_jobs", "Jobs by kind and status.", ("kind", "status"), registry=self.registry)
        self._workers = Gauge("mr_workers", "Workers heard within 60 s.", ("queue",), registry=self.registry)

    def observe(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """One request has been answered; status 0 is a client that went away."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def uploaded(self, n_bytes: int) -> None:
        """Bytes of a file have arrived."""
        self._uploaded.inc(n_bytes)

    def render(self, session: Session) -> bytes:
        """The text exposition, with the queue as it is now."""
        self._jobs.clear()
        counts = select(Job.kind, Job.status, func.count()).group_by(Job.kind, Job.status)
        for kind, status, n in session.execute(counts):
            assert status in JOB_STATUSES
            self._jobs.labels(kind, status).set(n)
        self._workers.clear()
        alive = WorkerHeartbeat.heartbeat_at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 60)
        for queue, n in session.execute(
            select(WorkerHeartbeat.queue, func.count()).where(alive).group_by(WorkerHeartbeat.queue)
        ):
            self._workers.labels(queue).set(n)
        return generate_latest(self.registry)
