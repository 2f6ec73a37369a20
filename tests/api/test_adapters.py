"""Adapters: bytes that never change, in whole, in part, or not again."""

import hashlib

import pytest

CONTENT = bytes(range(256)) * 6000  # more than one chunk of the database


@pytest.fixture
def adapter(stand_in):
    return stand_in.finish(stand_in.claim(stand_in.job()), adapter=CONTENT)


def test_read_and_download(client, adapter):
    told = client.get(f"/v1/adapters/{adapter}").json()
    assert (told["sha256"], told["size_bytes"]) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert (told["backbone"], told["classes"]) == ("builtin/mini-clip", ["cat", "dog"])
    answer = client.get(f"/v1/adapters/{adapter}/content")
    assert answer.content == CONTENT
    assert answer.headers["etag"] == f'"{told["sha256"]}"'
    assert answer.headers["content-type"] == "application/zip"
    assert adapter in answer.headers["content-disposition"]


def test_head_tells_the_same_without_the_bytes(client, adapter):
    answer = client.head(f"/v1/adapters/{adapter}/content")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", str(len(CONTENT)))


@pytest.mark.parametrize("tag", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
def test_304(client, adapter, tag):
    held = tag.format(hashlib.sha256(CONTENT).hexdigest())
    answer = client.get(f"/v1/adapters/{adapter}/content", headers={"If-None-Match": held})
    assert (answer.status_code, answer.content) == (304, b"")
    assert client.get(f"/v1/adapters/{adapter}/content", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=1048570-1048590", slice(1048570, 1048591)),
        ("bytes=1535990-", slice(1535990, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=10-99999999", slice(10, None)),
    ],
)
def test_range(client, adapter, asked, part):
    answer = client.get(f"/v1/adapters/{adapter}/content", headers={"Range": asked})
    begin, end, _ = part.indices(len(CONTENT))
    assert (answer.status_code, answer.content) == (206, CONTENT[part])
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["bytes=1536000-", "bytes=9-3", "bytes=-0"])
def test_range_outside(client, adapter, asked):
    answer = client.get(f"/v1/adapters/{adapter}/content", headers={"Range": asked})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=-", "bytes=a-b", "bytes=0-1,4-5", "bytes=" + "9" * 5000 + "-"])
def test_ranges_that_are_none_are_ignored(client, adapter, asked):
    answer = client.get(f"/v1/adapters/{adapter}/content", headers={"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, len(CONTENT))


def test_if_range(client, adapter):
    etag = client.head(f"/v1/adapters/{adapter}/content").headers["etag"]
    for tag, status in ((etag, 206), ('"older"', 200)):
        headers = {"Range": "bytes=0-9", "If-Range": tag}
        assert client.get(f"/v1/adapters/{adapter}/content", headers=headers).status_code == status


def test_delete(client, adapter):
    assert client.delete(f"/v1/adapters/{adapter}").status_code == 204
    assert client.get(f"/v1/adapters/{adapter}").json()["code"] == "not_found"
    assert client.get("/v1/adapters").json()["data"] == []
