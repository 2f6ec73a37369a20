import base64
import hashlib
import json

import pytest

from cli import uploading
from cli.main import main

PART = 4
CONTENT = b"0123456789"
UPLOAD = {
    "id": "up_1", "name": "data.zip", "modality": "image", "size_bytes": 10, "part_bytes": PART, "parts": 3,
    "sha256": hashlib.sha256(CONTENT).hexdigest(), "status": "open",
}  # fmt: skip
READY = {"id": "ds_1", "status": "ready", "classes": ["a", "b"], "splits": {"train": 4}, "error": None}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(uploading, "IN_PARTS_BYTES", 8)
    monkeypatch.setattr(uploading, "_PAUSE_S", 0)
    (tmp_path / "data.zip").write_bytes(CONTENT)
    return tmp_path / "data.zip"


@pytest.fixture
def parts(service):
    """A service that takes parts; what has arrived, by number."""
    arrived: dict[int, bytes] = {}

    def take(request):
        digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
        assert request.headers["Content-Digest"] == f"sha-256=:{digest}:"
        arrived[int(request.path.rpartition("/")[2])] = request.body
        return 200, {}

    service.answers = {
        "GET /v1/uploads": (200, {"data": [], "has_more": False}),
        "POST /v1/uploads": (201, UPLOAD),
        "GET /v1/uploads/up_1": (200, UPLOAD | {"received": []}),
        **{f"PUT /v1/uploads/up_1/parts/{n}": take for n in (1, 2, 3)},
        "POST /v1/uploads/up_1/complete": (201, READY),
        "GET /v1/datasets/ds_1": (200, READY),
        "DELETE /v1/uploads/up_1": (204, b""),
    }
    return arrived


def test_a_large_file_goes_in_parts(service, parts, path, capsys):
    assert main(["datasets", "upload", str(path), "--json"]) == 0
    assert parts == {1: b"0123", 2: b"4567", 3: b"89"}
    announced = service.sent("POST")[0].json
    assert announced == {key: UPLOAD[key] for key in ("name", "modality", "size_bytes", "sha256")}
    assert json.loads(capsys.readouterr().out)["id"] == "ds_1"


def test_a_small_file_goes_at_once(service, path):
    path.write_bytes(b"small")
    service.answers = {"POST /v1/datasets": (201, READY), "GET /v1/datasets/ds_1": (200, READY)}
    assert main(["datasets", "upload", str(path)]) == 0
    assert b"small" in service.sent("POST")[0].body


@pytest.mark.parametrize(
    "failure",
    [
        (0, None),
        (503, {"code": "storage_unavailable", "detail": "full"}),
        (408, {"code": "request_timeout", "detail": "paused"}),
        (422, {"code": "digest_mismatch", "detail": "other bytes"}),
    ],
)
def test_a_part_that_breaks_is_sent_again(service, parts, path, capsys, failure):
    take = service.answers["PUT /v1/uploads/up_1/parts/2"]
    failures = [failure, failure]
    service.answers["PUT /v1/uploads/up_1/parts/2"] = lambda request: failures.pop() if failures else take(request)
    assert main(["datasets", "upload", str(path)]) == 0
    assert parts[2] == b"4567"
    assert capsys.readouterr().err.count("part 2 is sent again") == 2
    assert len(service.sent("PUT")) == 5


def test_a_part_that_is_refused_is_not_sent_again(service, parts, path):
    service.answers["PUT /v1/uploads/up_1/parts/2"] = (409, {"code": "part_conflict", "detail": "other bytes"})
    assert main(["datasets", "upload", str(path)]) == 2
    assert len(service.sent("PUT")) == 2


def test_a_part_that_never_arrives_ends_with_3_and_keeps_the_upload(service, parts, path):
    service.answers["PUT /v1/uploads/up_1/parts/2"] = (503, {"code": "unavailable", "detail": "full"})
    assert main(["datasets", "upload", str(path)]) == 3
    assert not service.sent("DELETE")


def test_goes_on_where_an_earlier_command_was(service, parts, path, capsys):
    others = [UPLOAD | {"id": "up_2", "sha256": "0" * 64}, UPLOAD | {"id": "up_3", "status": "complete"}]
    service.answers["GET /v1/uploads"] = (200, {"data": [*others, UPLOAD], "has_more": False})
    service.answers["GET /v1/uploads/up_1"] = (200, UPLOAD | {"received": [{"n": 1}, {"n": 3}]})
    assert main(["datasets", "upload", str(path)]) == 0
    assert parts == {2: b"4567"}
    assert "2 of 3 parts are there" in capsys.readouterr().err
    assert [request.path for request in service.sent("POST")] == ["/v1/uploads/up_1/complete"]


def test_a_file_that_is_refused_leaves_no_upload(service, parts, path, capsys):
    service.answers["POST /v1/uploads/up_1/complete"] = (422, {"code": "not_an_archive", "detail": "text"})
    assert main(["datasets", "upload", str(path)]) == 2
    assert "not_an_archive" in capsys.readouterr().err
    assert len(service.sent("DELETE")) == 1


def test_an_answer_that_is_lost_is_asked_for_again(service, parts, path, monkeypatch):
    monkeypatch.setattr("cli.client.time.sleep", lambda _: None)
    service.answers["POST /v1/uploads/up_1/complete"] = [(0, None), (201, READY)]
    assert main(["datasets", "upload", str(path)]) == 0
