"""The main job as a client does it: upload, diagnose, train, follow, download, predict; and the service around it."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile

import httpx
import numpy as np
import pytest

from cli.client import TERMINAL
from cli.digits import write_digits
from cli.output import accuracy
from tests.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]

_PADDING = {"kind": "padding", "image_size": 48}
_LIBRARY = (
    "import json, sys\n"
    "from mr_core import load_adapter\n"
    "found = load_adapter(sys.argv[1]).predict(sys.argv[2:])\n"
    "print(json.dumps([[item.label, item.probability] for item in found]))\n"
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits") / "digits.zip", per_class=15)


@pytest.fixture(scope="module")
def dataset(up, archive):
    with up.client() as client, archive.open("rb") as file:
        created = client.upload("/v1/datasets", file, "digits.zip", {"name": "digits", "modality": "image"})
        assert created["status"] == "validating"
        return client.wait_for_dataset(created["id"])


def finished(up, spec):
    with up.client() as client:
        job_id = client.submit(spec)["id"]
        wait_until(lambda: client.job(job_id)["status"] in TERMINAL, 900, f"the end of the {spec['kind']} job")
        job = client.job(job_id)
        assert job["status"] == "succeeded", job["error"]
        return job


def training(dataset, **trainer):
    return {
        "kind": "reprogram",
        "dataset": dataset["id"],
        "input_transform": _PADDING,
        "trainer": {"kind": "gradient", "batch_size": 32, **trainer},
    }


@pytest.fixture(scope="module")
def trained(up, dataset):
    return finished(up, training(dataset, epochs=2))


@pytest.fixture(scope="module")
def adapter(up, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("adapter") / "adapter.zip"
    with up.client() as client:
        client.download(f"/v1/adapters/{trained['result']['adapter']}/content", path)
    return path


def events_of(client, job_id):
    return client.get(f"/v1/jobs/{job_id}/events", limit=200)["data"]


def test_an_upload_is_validated(dataset):
    assert dataset["status"] == "ready"
    assert dataset["classes"] == [str(digit) for digit in range(10)]
    assert dataset["splits"] == {"train": 120, "test": 30}


def test_a_diagnosis_predicts_before_training(up, dataset):
    job = finished(up, {"kind": "diagnose", "dataset": dataset["id"], "input_transform": _PADDING, "samples": 30})
    spectrum, predicted = job["result"]["spectrum"], job["result"]["predicted"]
    low, high = predicted["accuracy_interval"]
    assert 0 <= low <= predicted["accuracy"] <= high <= 1
    with up.client() as client:
        path = f"/v1/jobs/{job['id']}/spectrum"
        values = client.get(path)["eigenvalues"]
        rows = list(csv.DictReader(io.StringIO(client.request("GET", path, headers={"Accept": "text/csv"}).text)))
        picture = client.request("GET", f"/v1/jobs/{job['id']}/plots/spectrum.svg")
    assert values == sorted(values, reverse=True)
    assert len(rows) == len(values)
    np.testing.assert_allclose([float(row["eigenvalue"]) for row in rows], values)
    assert spectrum["lambda_max"] == pytest.approx(values[0])
    assert picture.headers["content-type"].startswith("image/svg+xml")


def test_a_training_is_judged_beside_its_baselines(trained):
    result = trained["result"]
    assert result["backbone_unchanged"] is True
    assert set(result["baselines"]) >= {"majority", "mapping_only", "linear_probe", "zero_shot", "random_backbone"}
    assert accuracy(result["baselines"]["majority"], "test") == pytest.approx(0.1, abs=0.001)
    scores = {name: accuracy(values, "validation") for name, values in result["baselines"].items() if values}
    best = max(scores.values())
    if result["metrics"]["validation"]["accuracy"] < best:
        assert scores[result["verdict"]["use"]] == pytest.approx(best)
    assert result["verdict"]["reason"]


def test_events_are_in_order_and_without_gaps(up, trained):
    with up.client() as client:
        events = events_of(client, trained["id"])
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    statuses = [event["data"]["status"] for event in events if event["type"] == "status"]
    assert statuses == ["queued", "running", "succeeded"]
    assert len([event for event in events if event["type"] == "metrics"]) == 2


def test_the_pictures_and_the_report_are_there(up, trained):
    with up.client() as client:
        names = {artifact["name"] for artifact in client.get(f"/v1/jobs/{trained['id']}/artifacts")["data"]}
        report = client.request("GET", f"/v1/jobs/{trained['id']}/report").text
    figures = {
        f"plots/{name}.{form}" for name in ("curves", "prompt", "mapping", "confusion") for form in ("svg", "png")
    }
    assert names == figures | {"report.html", "predictions.csv"}
    assert report.startswith("<!doctype html>")


def test_the_adapter_is_served_under_its_checksum(up, trained, adapter):
    content = adapter.read_bytes()
    path = f"/v1/adapters/{trained['result']['adapter']}/content"
    with httpx.Client(base_url=up.address, headers={"Authorization": f"Bearer {up.key}"}) as http:
        etag = http.get(path).headers["etag"]
        assert etag == f'"{hashlib.sha256(content).hexdigest()}"'
        assert http.get(path, headers={"If-None-Match": etag}).status_code == 304
        part = http.get(path, headers={"Range": "bytes=10-29"})
        assert (part.status_code, part.content) == (206, content[10:30])
        assert http.get(path, headers={"Range": f"bytes={len(content)}-"}).status_code == 416
    assert sorted(zipfile.ZipFile(adapter).namelist()) == ["adapter.safetensors", "config.json"]


def test_the_service_predicts_what_the_library_does(up, trained, adapter, archive, tmp_path):
    with zipfile.ZipFile(archive) as file:
        names = [name for name in file.namelist() if name.startswith("test/")][::3]
        images = [tmp_path / f"{number}.png" for number in range(len(names))]
        for name, image in zip(names, images, strict=True):
            image.write_bytes(file.read(name))
    with up.client() as client:
        files = [("images", (image.name, image.read_bytes())) for image in images]
        answer = client.request("POST", f"/v1/adapters/{trained['result']['adapter']}/predict", files=files).json()
    done = subprocess.run(
        [sys.executable, "-c", _LIBRARY, str(adapter), *map(str, images)], check=True, capture_output=True, text=True
    )
    local = json.loads(done.stdout)
    assert [item["input"] for item in answer["predictions"]] == [image.name for image in images]
    assert [item["label"] for item in answer["predictions"]] == [label for label, _ in local]
    served = [item["probability"] for item in answer["predictions"]]
    np.testing.assert_allclose(served, [probability for _, probability in local], atol=1e-5, rtol=0)
    assert answer["adapter_sha256"] == hashlib.sha256(adapter.read_bytes()).hexdigest()


def test_a_cancel_ends_a_running_job_within_ten_seconds(up, dataset):
    with up.client() as client:
        job_id = client.submit(training(dataset, epochs=5000))["id"]
        wait_until(lambda: client.job(job_id)["phase"] == "training", 600, "the training")
        client.cancel(job_id)
        wait_until(lambda: client.job(job_id)["status"] == "cancelled", 10, "the end of a cancelled job")


def test_a_part_that_is_killed_comes_back(up):
    gateways = [process for process in up.processes() if "gateway" in process.cmdline()]
    assert len(gateways) == 1
    gateways[0].kill()
    with up.client() as client:
        assert client.get("/v1/jobs", limit=1)["object"] == "list"  # the socket waits while the gateway starts again
    assert "the gateway was killed by SIGKILL" in up.log


def test_a_killed_service_takes_up_its_job_where_it_was(up, dataset):
    with up.client() as client:
        job_id = client.submit(training(dataset, epochs=12))["id"]
        wait_until(lambda: _epochs(client, job_id) >= 2, 600, "two epochs")
    key = up.key
    up.kill()
    wait_until(lambda: not up.processes(), 90, "the end of every part after a kill -9")
    up.start()
    assert up.key == key
    with up.client() as client:
        wait_until(lambda: client.job(job_id)["status"] in TERMINAL, 900, "the end of the job")
        job, events = client.job(job_id), events_of(client, job_id)
    assert job["status"] == "succeeded", job["error"]
    assert job["attempt"] >= 2
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    epochs = [event["data"]["epoch"] for event in events if event["type"] == "metrics" and "epoch" in event["data"]]
    assert len(epochs) < 2 * 12, "it went on from its checkpoint"
    assert max(epochs) == 11


def test_sigterm_leaves_no_process(up):
    assert up.processes()
    assert up.stop() == 0
    assert up.processes() == []
    assert not (up.data_dir / "address").exists()


def _epochs(client, job_id):
    return sum(event["type"] == "metrics" for event in events_of(client, job_id))


def test_the_demo_leaves_what_it_promises(archive, tmp_path):
    output = tmp_path / "demo-output"
    command = [
        sys.executable,
        "-m",
        "cli.main",
        "demo",
        "--data",
        str(archive),
        "--epochs",
        "1",
        "--output",
        str(output),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MR_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in output.iterdir()} == {
        "adapter.zip", "spectrum.svg", "curves.svg", "prompt.png", "report.html", "summary.json",
    }  # fmt: skip
    summary = json.loads((output / "summary.json").read_text())
    assert set(summary) == {"dataset", "diagnosis", "adapters", "best", "seconds"}
    assert [adapter["label_mapping"] for adapter in summary["adapters"]] == ["iterative", "linear"]
    assert summary["best"] in {adapter["id"] for adapter in summary["adapters"]}
    for adapter in summary["adapters"]:
        assert 0 <= adapter["test_accuracy"] <= 1
        assert 0 <= adapter["random_backbone_accuracy"] <= 1
