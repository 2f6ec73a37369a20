"""A tiny ready dataset, jobs of the toy kind on it, and supervisors to run them."""

import json
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from PIL import Image

from mr_core.datasets.pack import write_pack
from service import datasets, jobs
from service.models import Event, Job, StoredCheckpoint
from service.queue import make_celery
from service.session import Database
from service.sweeper import Sweeper
from worker.supervisor import Supervisor

TOY_ATTEMPT = (sys.executable, "-m", "tests.worker.toy_attempt")
TENANT = "tenant"


def wait_until(condition, timeout_s=20.0):
    until = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)
    return value


@pytest.fixture
def dataset_id(database, blobs, tmp_path):
    return store_dataset(database, blobs, tmp_path, tenant=TENANT)


def store_dataset(database, blobs, folder, *, tenant):
    """A tiny dataset that is ready, without an upload; its id."""
    pack = folder / "tiny.pack.zip"
    with write_pack(pack) as writer:
        for split, n in (("train", 16), ("test", 4)):
            for i in range(n):
                image = Image.new("RGB", (12, 12), (15 * i, 90, 200 - 90 * (i % 2)))
                writer.add(image, split=split, class_name=f"class{i % 2}", name=f"{i}.png")
    stored = blobs.put_file(pack)
    with database.session() as session:
        row = datasets.create(
            session, tenant=tenant, name="tiny", modality="image", sha256=stored.sha256, size_bytes=stored.size_bytes
        )
        for job in session.query(Job).filter_by(dataset_id=row.id):
            jobs.cancel(session, job.id)
        datasets.set_ready(
            session,
            row.id,
            pack_sha256=stored.sha256,
            classes=["class0", "class1"],
            splits={"train": 16, "test": 4},
            report={},
        )
    return row.id


@pytest.fixture
def bench(settings, database, blobs, dataset_id, database_url, tmp_path):
    """Submits toy jobs, runs them in threads or processes of their own, reads what became of them."""
    with ExitStack() as stack:
        yield Bench(settings, database, blobs, dataset_id, database_url, tmp_path, stack)


class Bench:
    def __init__(self, settings, database, blobs, dataset_id, database_url, tmp_path, stack):
        # The sweeper's own answer to a cancel must not hide the supervisor's.
        self.settings = settings.model_copy(update={"cancel_grace_s": 30, "threads": 1})
        self.database, self.blobs, self.dataset_id = database, blobs, dataset_id
        self.closing = threading.Event()
        self.database_url, self.tmp_path, self.stack = database_url, tmp_path, stack
        self.sweeper = Sweeper(
            self.settings, database, make_celery(self.settings), blobs, publish_job=lambda job_id, queue: None
        )

    def submit(self, *, max_attempts=3, queue="cpu", kind="toy", **fields):
        if fields.get("once") is True:
            fields["once"] = str(self.tmp_path / f"once-{time.monotonic_ns()}")
        spec = {"kind": kind, "dataset": self.dataset_id, **fields}
        with self.database.session() as session:
            return jobs.create_job(
                session,
                tenant=TENANT,
                kind=kind,
                spec=spec,
                queue=queue,
                dataset_id=self.dataset_id,
                max_attempts=max_attempts,
            ).id

    def supervisor(self, **fields):
        # Its own pool, as in a process of its own.
        database = Database(self.database_url, pool_size=2)
        self.stack.callback(database.dispose)
        defaults = {
            "settings": self.settings,
            "owner": "wk_thread",
            "device": "cpu",
            "command": TOY_ATTEMPT,
            "is_stopping": self.closing.is_set,
            "stop_grace_s": 1,
        }
        return Supervisor(database=database, **{**defaults, **fields})

    def run(self, job_id, **fields):
        self.supervisor(**fields).run(job_id)
        return self.job(job_id)

    def start(self, job_id, **fields):
        """Run in a thread; joined at the end of the test."""
        thread = threading.Thread(target=self.supervisor(**fields).run, args=(job_id,))
        thread.start()
        self.stack.callback(thread.join)
        self.stack.callback(self.closing.set)
        return thread

    def start_process(self, job_id):
        """Run in a process that can be killed or stopped."""
        command = [sys.executable, "-m", "tests.worker.toy_supervisor", self.settings_json(), self.database_url, job_id]
        process = self.stack.enter_context(subprocess.Popen([*command, *TOY_ATTEMPT]))
        self.stack.callback(process.kill)
        return process

    def settings_json(self, **changes):
        return json.dumps(self.settings.model_dump(mode="json", exclude={"predictor_token"}) | changes)

    def job(self, job_id):
        with self.database.session() as session:
            return session.get(Job, job_id)

    def wait_for(self, job_id, *statuses, timeout_s=30.0):
        return wait_until(lambda: (job := self.job(job_id)).status in statuses and job, timeout_s)

    def wait_for_step(self, job_id, step, timeout_s=30.0):
        return wait_until(lambda: self.step(job_id) >= step, timeout_s)

    def step(self, job_id):
        """The step of the newest checkpoint; progress is written twice a second at most."""
        with self.database.session() as session:
            stored = session.get(StoredCheckpoint, (job_id, "training"))
        return stored.step if stored else 0

    def cancel(self, job_id):
        with self.database.session() as session:
            jobs.request_cancel(session, TENANT, job_id)

    def events(self, job_id, of_type=None):
        with self.database.session() as session:
            rows = session.query(Event).filter_by(job_id=job_id).order_by(Event.seq).all()
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        return [row for row in rows if of_type in (None, row.type)]

    def outcomes(self, job_id):
        return [attempt.get("outcome") for attempt in self.job(job_id).attempts]

    def scratch(self):
        root = self.settings.data_dir / "scratch"
        return sorted(path.name for path in root.iterdir()) if root.exists() else []
