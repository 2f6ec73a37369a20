"""What jobs leave, in each form that Accept can ask for."""

import csv
import io

import numpy as np
import pytest

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture
def job(stand_in):
    job_id = stand_in.job()
    claim = stand_in.claim(job_id)
    stand_in.tell(claim, ("metrics", {"epoch": 0, "loss": 0.7}, "info"))  # told again after a crash:
    stand_in.tell(claim, ("metrics", {"epoch": 0, "loss": 0.5}, "info"), ("message", {"text": "hm"}, "info"))
    stand_in.tell(claim, ("metrics", {"epoch": 1, "loss": 0.25, "accuracy": 0.9}, "info"))
    files = {
        "plots/spectrum.svg": ("image/svg+xml", SVG),
        "report.html": ("text/html", b"<h1>Report</h1><script>alert(1)</script>"),
    }
    stand_in.finish(claim, {"verdict": "use"}, spectrum=([2.0, 0.5], [0.75, 1.0]), files=files)
    return job_id


def test_metrics(client, job):
    rows = client.get(f"/v1/jobs/{job}/metrics").json()["data"]
    assert rows == [{"epoch": 0, "loss": 0.5}, {"epoch": 1, "loss": 0.25, "accuracy": 0.9}]
    text = client.get(f"/v1/jobs/{job}/metrics", headers={"Accept": "text/csv"}).text
    assert list(csv.DictReader(io.StringIO(text)))[1] == {"epoch": "1", "loss": "0.25", "accuracy": "0.9"}


def test_spectrum(client, job):
    path = f"/v1/jobs/{job}/spectrum"
    told = client.get(path).json()
    assert told == {"eigenvalues": [2.0, 0.5], "label_energy": [0.75, 1.0], "summary": {"n_samples": 2}}
    assert (
        client.get(path, headers={"Accept": "text/csv"}).text
        == "index,eigenvalue,label_energy\n0,2.0,0.75\n1,0.5,1.0\n"
    )
    answer = client.get(path, headers={"Accept": "application/x-npz"})
    arrays = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert set(arrays) == {"eigenvalues", "label_energy", "summary"}
    assert arrays["eigenvalues"].tolist() == [2.0, 0.5]
    assert client.get(path, headers={"Accept": "image/png"}).json()["code"] == "not_acceptable"


def test_files_and_plots(client, job):
    listed = client.get(f"/v1/jobs/{job}/artifacts").json()["data"]
    assert [file["name"] for file in listed] == ["plots/spectrum.svg", "report.html"]
    plot = client.get(f"/v1/jobs/{job}/plots/spectrum.svg")
    assert (plot.content, plot.headers["content-type"]) == (SVG, "image/svg+xml")
    assert client.get(listed[0]["url"]).content == SVG
    assert (
        client.get(f"/v1/jobs/{job}/plots/spectrum.svg", headers={"If-None-Match": plot.headers["etag"]}).status_code
        == 304
    )


def test_a_report_cannot_act_in_the_name_of_the_gateway(client, job):
    report = client.get(f"/v1/jobs/{job}/report")
    assert report.headers["content-type"].startswith("text/html")
    assert report.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


@pytest.mark.parametrize("path", ["plots/curves.svg", "artifacts/none.txt", "spectrum", "report"])
def test_what_is_not_there(client, stand_in, path):
    answer = client.get(f"/v1/jobs/{stand_in.job()}/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_other_formats_are_not_served(client, job):
    assert client.get(f"/v1/jobs/{job}/plots/spectrum.pdf").status_code == 422
    assert client.get(f"/v1/jobs/{job}/plots/curves.png").json()["detail"].endswith("plots/spectrum.svg, report.html")


def test_checkpoints(client, job):
    assert client.get(f"/v1/jobs/{job}/checkpoints").json()["data"] == []
