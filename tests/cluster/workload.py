"""Jobs of every kind, posted through all gateways in turn, cancelled and retried; gateways may die meanwhile."""

import io
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.client import Client
from cli.digits import write_digits
from cli.errors import ApiError, CommandError, UnreachableError
from tests.cluster.cluster import Cluster

_PATIENCE_S = 60
_LINEAR = {"label_mapping": {"kind": "linear"}, "input_transform": {"kind": "identity"}}


@dataclass
class Posted:
    """A job as its client knows it."""

    id: str
    kind: str
    cancel_at: float | None = None
    is_cancelled: bool = False


@dataclass
class Workload:
    """`n_jobs` are posted one after another; `tick` does what is due next and is called until `is_posted`."""

    cluster: Cluster
    folder: Path
    n_jobs: int
    seed: int
    pace_s: float = 0.7
    posted: list[Posted] = field(default_factory=list)
    doubled: int = 0
    retried: int = 0
    _post_at: float = 0.0
    _turn: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._clients = [self.cluster.client(n, timeout_s=20) for n in range(len(self.cluster.urls))]
        self._dataset, self.adapter = "", ""
        n_real = max(5, self.n_jobs // 8)
        kinds = ["validate", "diagnose", "reprogram", "evaluate", "rank"]
        real = [kinds[n % len(kinds)] for n in range(n_real)]
        self._to_post = ["toy"] * (self.n_jobs - n_real) + real
        self._random.shuffle(self._to_post)

    def prepare(self) -> None:
        """A dataset and an adapter to work with, made before anything is killed."""
        self._dataset = self._upload()
        self._clients[0].wait_for_dataset(self._dataset, timeout_s=120)
        job_id = self._clients[0].submit(self._spec("reprogram"))["id"]
        while (job := self._clients[0].job(job_id))["status"] not in {"succeeded", "failed"}:
            time.sleep(0.3)
        assert job["status"] == "succeeded", job["error"]
        self.adapter = job["result"]["adapter"]

    @property
    def is_posted(self) -> bool:
        return not self._to_post and all(job.cancel_at is None for job in self.posted)

    def tick(self) -> None:
        """Post the next job or cancel one, if it is time."""
        now = time.monotonic()
        for job in [job for job in self.posted if job.cancel_at is not None and job.cancel_at <= now]:
            self._cancel(job)
        if self._to_post and now >= self._post_at:
            self._post_at = now + self._random.uniform(0, 2 * self.pace_s)
            kind = self._to_post.pop()
            if kind == "validate":
                self._upload()
            else:
                self._post(kind)

    def close(self) -> None:
        for client in self._clients:
            client.__exit__(None, None, None)

    def _post(self, kind: str) -> None:
        request = {"json": self._spec(kind), "headers": {"Idempotency-Key": str(uuid.uuid4())}}
        answer = self._ask(lambda client: client.request("POST", "/v1/jobs", **request).json())
        job = Posted(answer["id"], kind)
        if self._random.random() < 0.3:
            again = self._ask(lambda client: client.request("POST", "/v1/jobs", **request).json())
            assert again["id"] == job.id, "the same Idempotency-Key gave another job"
            self.doubled += 1
        if kind == "toy" and self._random.random() < 0.2:
            job.cancel_at = time.monotonic() + self._random.uniform(0, 4)
        self.posted.append(job)

    def _cancel(self, job: Posted) -> None:
        job.cancel_at = None
        answer = self._ask(lambda client: client.cancel(job.id))
        job.is_cancelled = answer["status"] in {"cancelled", "cancelling"}
        if job.is_cancelled and self._random.random() < 0.5:
            try:
                self._ask(lambda client: client.request("POST", f"/v1/jobs/{job.id}/retry"))
                self.retried += 1
            except ApiError as error:
                if error.code != "job_not_retryable":  # it has not stopped yet
                    raise

    def _upload(self) -> str:
        path = self.folder / f"digits-{self._random.randrange(10**9)}.zip"
        content = write_digits(path, per_class=6).read_bytes()
        form = {"name": path.stem, "modality": "image"}
        return str(self._ask(lambda client: client.upload("/v1/datasets", io.BytesIO(content), path.name, form))["id"])

    def _spec(self, kind: str) -> dict[str, Any]:
        seed = self._random.randrange(10**6)
        common = {"kind": kind, "dataset": self._dataset, "seed": seed}
        if kind == "toy":
            return common | {"steps": self._random.randrange(5, 25), "step_s": 0.1}
        if kind == "diagnose":
            return common | {**_LINEAR, "samples": 12}
        if kind == "rank":
            grid = {
                "input_transforms": [{"kind": "identity"}],
                "label_mappings": [{"kind": "linear"}, {"kind": "linear", "on": "source_logits"}],
            }
            return common | {**grid, "samples": 12}
        if kind == "evaluate":
            return common | {"adapter": self.adapter}
        return common | {**_LINEAR, "trainer": {"kind": "gradient", "epochs": 2, "batch_size": 16}}

    def _ask(self, question: Callable[[Client], Any]) -> Any:
        """Put it to the next gateway, and to the others while one is away."""
        give_up_at = time.monotonic() + _PATIENCE_S
        while True:
            client = self._clients[self._turn % len(self._clients)]
            self._turn += 1
            try:
                return question(client)
            except CommandError as error:
                is_away = isinstance(error, UnreachableError) or getattr(error, "status", 0) == 503
                if not is_away or time.monotonic() > give_up_at:
                    raise
            self.cluster.look_after()
            time.sleep(0.2)
