"""Uploads: what the archive itself shows is refused at once, and nothing stays behind."""

import io
import tarfile
import zipfile

import numpy as np
import pytest


def _upload(client, content, **form):
    return client.post(
        "/v1/datasets", files={"file": ("pets.zip", content)}, data={"name": "pets", "modality": "image"} | form
    )


def test_upload_is_accepted_and_waits_for_validation(gateway, client, archive):
    content = archive({"cat": 3, "dog": 3})
    answer = _upload(client, content)
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert (dataset["status"], dataset["size_bytes"], dataset["modality"]) == ("validating", len(content), "image")
    assert answer.headers["Location"] == f"/v1/datasets/{dataset['id']}"
    assert client.get(answer.headers["Location"]).json() == dataset
    with gateway.blobs.open(dataset["sha256"]) as stored:
        assert stored.read() == content
    assert client.get("/v1/jobs").json()["data"] == [], "the validating job is the service's own"
    assert client.get(f"/v1/datasets/{dataset['id']}/report").json()["status"] == "validating"


def _parquet(images, labels):
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = io.BytesIO()
    pq.write_table(pa.table({"image": images, "label": labels}), content, compression="zstd", use_dictionary=False)
    return content.getvalue()


def test_parquet_is_accepted_by_its_footer(client):
    answer = _upload(client, _parquet([b"no image"] * 4, [0, 1, 0, None]))
    assert (answer.status_code, answer.json()["status"]) == (201, "validating"), answer.text


def test_fields_may_come_before_or_behind_the_file(client, archive):
    content = archive({"cat": 3, "dog": 3})
    parts = [("file", ("a.zip", content)), ("name", (None, "late")), ("modality", (None, "image"))]
    for order in (parts, parts[::-1]):
        assert client.post("/v1/datasets", files=order).json()["name"] == "late"


def _slip():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("train/cat/../../../etc/a.png", b"x")
    return content.getvalue()


def _link():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        entry = tarfile.TarInfo("train/cat/a.png")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(entry)
    return content.getvalue()


def _bomb():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("train/cat/a.png", "train/dog/a.png"):
            file.writestr(name, bytes(60 << 20))
    return content.getvalue()


def _pickled():
    content = io.BytesIO()
    np.savez(content, x_train=np.array([{"a": 1}, None], dtype=object), y_train=np.array([0, 1]))
    return content.getvalue()


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(lambda archive: b"hello, I am a text", "not_an_archive", id="text"),
        pytest.param(lambda archive: b"", "not_an_archive", id="0 bytes"),
        pytest.param(lambda archive: archive({"cat": 3, "dog": 3})[:-30], None, id="cut off"),
        pytest.param(lambda archive: _slip(), "unsafe_archive", id="zip slip"),
        pytest.param(lambda archive: _link(), "unsafe_archive", id="link"),
        pytest.param(lambda archive: _bomb(), "archive_bomb", id="bomb"),
        pytest.param(lambda archive: archive({"cat": 3}), "one_class", id="one class"),
        pytest.param(lambda archive: archive({"cat": 3, "dog": 0}), "empty_class", id="empty class"),
        pytest.param(lambda archive: archive({"cat": 3, "dog": 1}), "class_too_small", id="class of one"),
        pytest.param(
            lambda archive: archive({"cat": 2, "dog": 2}, extra={"train/cat/more.zip": archive({"a": 1})}),
            "unsafe_archive",
            id="nested",
        ),
        pytest.param(lambda archive: _pickled(), None, id="pickled npz"),
        pytest.param(lambda archive: _parquet([b"x"], [0])[:-9], "invalid_archive", id="parquet cut off"),
        pytest.param(lambda archive: _parquet([b"x"], [[0]]), "unknown_layout", id="parquet with nested labels"),
        pytest.param(lambda archive: _parquet([bytes(60 << 20)], [0]), "archive_bomb", id="parquet that inflates"),
    ],
)
def test_bad_archive_is_refused_and_nothing_stays(gateway, client, archive, make, code):
    before = gateway.kept()
    answer = _upload(client, make(archive))
    problem = answer.json()
    assert answer.status_code == 422, answer.text
    assert problem["code"] == code or code is None
    assert problem["param"] == "file"
    assert problem["detail"]
    assert gateway.kept() == before


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"modality": "sound"}, "modality"),
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_field_is_named_and_nothing_stays(gateway, client, archive, form, param):
    before = gateway.kept()
    answer = _upload(client, archive({"cat": 3, "dog": 3}), **form)
    assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (422, "validation_error", param)
    assert gateway.kept() == before


def test_missing_file_and_text_for_a_file(client):
    answer = client.post("/v1/datasets", files={"name": (None, "pets")})
    assert (answer.status_code, answer.json()["param"]) == (422, "file")
    answer = client.post("/v1/datasets", files={"file": (None, "text")})
    assert (answer.status_code, answer.json()["param"]) == (422, "file")


_FORM = "multipart/form-data; boundary=b"
_FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{}", "application/json", 415, "unsupported_media_type"),
        (b"x", "multipart/form-data", 400, "malformed_body"),
        (b"no boundary in here", _FORM, 400, "malformed_body"),
        (_FILE + b"abc", _FORM, 400, "malformed_body"),
        (b"--b\r\nContent-Type: text/plain\r\n\r\nabc\r\n--b--\r\n", _FORM, 400, "malformed_body"),
        (b"", _FORM, 400, "malformed_body"),
    ],
)
def test_bad_multipart(gateway, client, body, content_type, status, code):
    before = gateway.kept()
    answer = client.post("/v1/datasets", content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert gateway.kept() == before


def test_too_large_a_file_is_refused_by_its_length(gateway, client):
    before = gateway.kept()
    answer = _upload(client, bytes(13 << 20))
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert answer.headers["content-type"] == "application/problem+json"
    assert gateway.kept() == before


def test_too_large_a_file_is_refused_while_it_comes(gateway, client):
    def chunks():
        yield _FILE
        for _ in range(80):
            yield bytes(256 << 10)

    before = gateway.kept()
    answer = client.post("/v1/datasets", content=chunks(), headers={"Content-Type": _FORM})
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert gateway.kept() == before


def test_delete(client, stand_in):
    dataset = stand_in.dataset()
    job = stand_in.job(dataset)
    answer = client.delete(f"/v1/datasets/{dataset}")
    assert (answer.status_code, answer.json()["code"]) == (409, "dataset_in_use")
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.delete(f"/v1/datasets/{dataset}").status_code == 204
    assert client.get(f"/v1/datasets/{dataset}").status_code == 404


def test_pages_are_stable_and_complete(client, stand_in):
    made = [stand_in.dataset() for _ in range(5)]
    first = client.get("/v1/datasets?limit=3").json()
    stand_in.dataset()
    second = client.get("/v1/datasets", params={"limit": 3, "after": first["last_id"]}).json()
    assert [item["id"] for item in first["data"] + second["data"]] == made[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)
