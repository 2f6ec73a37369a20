"""Small disks under the blobs and the scratch folder of a cluster: full in an upload, full in training."""

import base64
import contextlib
import hashlib
import io
import secrets
import subprocess

import pytest

from cli.client import TERMINAL
from cli.digits import write_digits
from cli.errors import ApiError
from tests.cluster.chaos import connections, faults_in_rows, left_behind
from tests.cluster.cluster import Cluster
from tests.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

_DISK_KB = 8192
_SPEC = {
    "kind": "reprogram",
    "input_transform": {"kind": "padding", "image_size": 32},
    "label_mapping": {"kind": "iterative"},
    "trainer": {"kind": "gradient", "epochs": 2, "batch_size": 16},
}


@contextlib.contextmanager
def small_disk(path):
    """A file system of its own at this folder; only root may mount one."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_KB}k", "none", str(path)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextlib.contextmanager
def filled(disk):
    """No byte is left on the disk meanwhile."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture(scope="module")
def disks(folder):
    with (
        small_disk(folder / "cluster" / "blobs") as blobs,
        small_disk(folder / "cluster" / "parts" / "cpu-worker-1" / "scratch") as scratch,
    ):
        yield {"blobs": blobs, "scratch": scratch}


@pytest.fixture(scope="module")
def cluster(folder, disks):
    parts = {"gateway": 1, "sweeper": 1, "cpu-worker": 1, "io-worker": 1}
    with Cluster(folder / "cluster", only=parts, settings={"MR_MAX_ATTEMPTS": "20"}) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with cluster.client(timeout_s=30) as client:
        yield client


@pytest.fixture(scope="module")
def dataset(cluster, folder):
    archive = write_digits(folder / "digits.zip", per_class=10)
    with cluster.client() as client:
        form = {"name": "digits", "modality": "image"}
        dataset = client.upload("/v1/datasets", io.BytesIO(archive.read_bytes()), "digits.zip", form)
        return client.wait_for_dataset(dataset["id"], timeout_s=120)["id"]


def digest_of(content):
    return {"Content-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"}


def files_of(disk):
    return {path for path in disk.rglob("*") if path.is_file()}


def test_an_upload_larger_than_the_disk_is_refused_and_leaves_nothing(cluster, client, disks, dataset):
    before = files_of(disks["blobs"])
    content = io.BytesIO(secrets.token_bytes(2 * _DISK_KB * 1024))
    with pytest.raises(ApiError) as refused:
        client.request(
            "POST", "/v1/datasets", data={"name": "large", "modality": "image"}, files={"file": ("a.zip", content)}
        )
    assert (refused.value.status, refused.value.code) == (503, "storage_unavailable")
    assert files_of(disks["blobs"]) == before
    assert [row["id"] for row in client.get("/v1/datasets")["data"]] == [dataset]


def test_a_part_larger_than_the_disk_is_refused_and_may_come_again(client, disks, dataset):
    size = _DISK_KB * 1024 // 16
    upload = client.request(
        "POST", "/v1/uploads", json={"name": "in parts", "size_bytes": 2 * size, "part_bytes": size}
    ).json()
    path, content = f"/v1/uploads/{upload['id']}/parts/1", secrets.token_bytes(size)
    with filled(disks["blobs"]), pytest.raises(ApiError) as refused:
        client.request("PUT", path, content=content, headers=digest_of(content))
    assert (refused.value.status, refused.value.code) == (503, "storage_unavailable")
    assert client.request("PUT", path, content=content, headers=digest_of(content)).is_success
    client.request("DELETE", f"/v1/uploads/{upload['id']}")


def wait_for_end(cluster, client, job_id):
    """It has succeeded, exactly once, and left what it should."""
    wait_until(lambda: client.job(job_id)["status"] in TERMINAL, 120, "the end of the job")
    with cluster.database() as database:
        assert faults_in_rows(database, []) == []
    assert left_behind(cluster, connections(cluster)) == []


def test_training_goes_on_once_the_scratch_disk_has_room(cluster, client, disks, dataset):
    with filled(disks["scratch"]):
        job_id = client.submit({**_SPEC, "dataset": dataset})["id"]
        wait_until(lambda: client.job(job_id)["attempts"][1:], 120, "a second attempt")
        first = client.job(job_id)["attempts"][0]
        assert first["outcome"] == "storage_unavailable", first
        assert client.job(job_id)["status"] not in TERMINAL
    wait_for_end(cluster, client, job_id)


def test_training_needs_no_room_for_blobs(cluster, client, disks, dataset):
    """What it keeps is in PostgreSQL; the feature cache, which is not, goes without."""
    with filled(disks["blobs"]):
        job_id = client.submit({**_SPEC, "dataset": dataset, "input_transform": {"kind": "identity"}})["id"]
        wait_for_end(cluster, client, job_id)
