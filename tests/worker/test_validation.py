"""Uploads become packs in a process of their own; what is wrong with one is in the dataset, not in a crash."""

import io
import random
import zipfile

import pytest
from PIL import Image

from mr_core.datasets.dataset import ImageDataset
from service import datasets
from service.models import Dataset, Job
from service.session import Database
from worker.supervisor import Supervisor

pytestmark = pytest.mark.integration


def png(seed):
    data = io.BytesIO()
    Image.frombytes("RGB", (16, 16), random.Random(seed).randbytes(16 * 16 * 3)).save(data, "PNG")
    return data.getvalue()


def archive(**extra):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for split, n in (("train", 4), ("test", 2)):
            for i in range(n):
                for name in ("cat", "dog"):
                    file.writestr(f"{split}/{name}/{i}.png", png(f"{split}{name}{i}"))
        for name, content in extra.items():
            file.writestr(name.replace("__", "/") + ".png", content)
    return data.getvalue()


@pytest.fixture
def upload(database, blobs, settings, database_url):
    def run(content):
        with blobs.writer() as writer:
            writer.write(content)
            stored = writer.commit()
        with database.session() as session:
            dataset_id = datasets.create(
                session, tenant="a", name="d", modality="image", sha256=stored.sha256, size_bytes=stored.size_bytes
            ).id
            job_id = session.query(Job).filter_by(dataset_id=dataset_id).one().id
        own = Database(database_url, pool_size=2)
        Supervisor(settings=settings, database=own, owner="wk_io", device="cpu").run(job_id)
        own.dispose()
        with database.session() as session:
            return session.get(Dataset, dataset_id), session.get(Job, job_id)

    return run


def test_a_good_archive_becomes_ready_with_its_pack(upload, blobs):
    dataset, job = upload(archive())
    assert (dataset.status, dataset.classes, dataset.splits) == ("ready", ["cat", "dog"], {"train": 8, "test": 4})
    assert (job.status, job.phase, job.result) == ("succeeded", "validating", {"status": "ready"})
    assert dataset.report["n_corrupt"] == 0
    with blobs.local_path(dataset.pack_sha256) as pack:
        assert ImageDataset.open(pack).n("train") == 8


def parquet(labels):
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = io.BytesIO()
    pq.write_table(pa.table({"image": [png(f"row {i}") for i in range(len(labels))], "label": labels}), data)
    return data.getvalue()


def test_a_parquet_file_becomes_ready_with_its_pack(upload, blobs):
    dataset, _ = upload(parquet([0.0, 1.0] * 6 + [float("nan")]))
    assert (dataset.status, dataset.classes, dataset.splits) == ("ready", ["0", "1"], {"train": 10, "test": 2})
    assert [bad["name"] for bad in dataset.report["corrupt"]] == ["rows[12]"]
    with blobs.local_path(dataset.pack_sha256) as pack:
        assert ImageDataset.open(pack).n("train") == 10


def test_a_label_column_of_no_use_becomes_invalid_with_a_reason(upload):
    dataset, job = upload(parquet([0.5, 1.5, 2.5]))
    assert (dataset.status, dataset.error["code"]) == ("invalid", "unknown_layout")
    assert dataset.error["detail"].startswith("row 0 has the label 0.5")
    assert job.status == "succeeded"


def test_a_corrupt_image_is_named_in_the_report(upload):
    dataset, _ = upload(archive(train__cat__broken=png(1)[:40]))
    assert dataset.status == "ready"
    assert [bad["name"] for bad in dataset.report["corrupt"]] == ["train/cat/broken.png"]


def test_what_is_no_archive_becomes_invalid_with_a_reason(upload):
    dataset, job = upload(b"no archive at all" * 100)
    assert (dataset.status, dataset.error["code"]) == ("invalid", "not_an_archive")
    assert dataset.error["detail"]
    assert (job.status, job.result) == ("succeeded", {"status": "invalid"})


def test_an_archive_without_a_readable_image_becomes_invalid(upload):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in ("a", "b"):
            for i in range(3):
                file.writestr(f"train/{name}/{i}.png", b"\x89PNG\r\n\x1a\n" + b"0" * 50)
    dataset, _ = upload(data.getvalue())
    assert dataset.status == "invalid"
    assert dataset.error["code"].startswith("invalid")


def test_validation_runs_without_torch():
    import subprocess
    import sys

    code = "import sys, worker.attempt, worker.validation, worker.supervisor; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
