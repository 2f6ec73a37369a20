"""Predictions, asked of the process behind the gateway."""

import pytest

CONTENT = b"an adapter"


@pytest.fixture
def path(stand_in):
    adapter = stand_in.finish(stand_in.claim(stand_in.job()), adapter=CONTENT)
    return f"/v1/adapters/{adapter}/predict"


def _images(*contents):
    return [("images", (f"{n}.png", content)) for n, content in enumerate(contents)]


def test_predictions_come_in_the_order_of_the_images(client, tenant, path, predictor):
    answer = client.post(f"{path}?top_k=1", files=_images(b"a", b"b", b"c"))
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert [prediction["input"] for prediction in told["predictions"]] == ["0.png", "1.png", "2.png"]
    assert told["predictions"][0]["top"] == [["cat", 0.9]]
    assert (told["adapter"], told["backbone_sha256"]) == (path.split("/")[3], "2" * 64)
    assert predictor == [{"adapter": told["adapter"], "tenant": tenant, "top_k": 1}]


def test_an_image_that_cannot_be_read(client, path, predictor):
    answer = client.post(path, files=_images(b"a", b""))
    assert (answer.status_code, answer.json()["code"]) == (422, "unreadable_image")


def test_without_a_predictor(client, path):
    answer = client.post(path, files=_images(b"a"))
    assert (answer.status_code, answer.json()["code"]) == (503, "predictor_unavailable")


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"files": {"image": ("a.png", b"a")}}, 422, "validation_error"),
        ({"files": {"images": (None, "text")}}, 422, "validation_error"),
        ({"json": {"rows": []}}, 415, "unsupported_media_type"),
        ({"files": _images(*[b"a"] * 65)}, 413, "payload_too_large"),
        ({"files": _images(bytes(33 << 20))}, 413, "payload_too_large"),
        ({"files": _images(b"a"), "params": {"top_k": 0}}, 422, "validation_error"),
    ],
)
def test_bad_requests(client, path, request_, status, code):
    answer = client.post(path, **request_)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
