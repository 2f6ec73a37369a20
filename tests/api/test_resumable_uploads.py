"""Uploads in parts: in any order, through any gateway, whatever breaks in between."""

import base64
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from api.main import create_app
from service import uploads
from service.models import UploadPart

PART = 64 << 10


@pytest.fixture
def content(archive):
    """An archive of four parts, the last of them shorter."""
    padding = {"train/cat/notes.txt": hashlib.shake_256(b"notes").digest(3 * PART)}
    made = archive({"cat": 3, "dog": 3}, extra=padding)
    assert 3 * PART < len(made) < 4 * PART
    return made


def digest_of(part):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(part).digest()).decode()}:"


def pieces(content):
    return {n + 1: content[start : start + PART] for n, start in enumerate(range(0, len(content), PART))}


def begin(client, content, **fields):
    body = {"name": "pets", "size_bytes": len(content), "part_bytes": PART} | fields
    answer = client.post("/v1/uploads", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def put(client, upload, n, part, digest=None):
    headers = {"Content-Digest": digest or digest_of(part)}
    return client.put(f"/v1/uploads/{upload}/parts/{n}", content=part, headers=headers)


def put_all(client, upload, content):
    for n, part in pieces(content).items():
        assert put(client, upload, n, part).status_code == 200


def complete(client, upload):
    return client.post(f"/v1/uploads/{upload}/complete")


def test_an_upload_says_how_its_parts_have_to_be(client, content):
    sha256 = hashlib.sha256(content).hexdigest()
    answer = client.post("/v1/uploads", json={"name": " pets ", "size_bytes": len(content), "sha256": sha256})
    upload = answer.json()
    assert (upload["name"], upload["parts"], upload["part_bytes"]) == ("pets", 1, 16 << 20)
    assert (upload["status"], upload["dataset"], upload["sha256"]) == ("open", None, sha256)
    assert answer.headers["Location"] == f"/v1/uploads/{upload['id']}"
    assert upload["expires_at"] > upload["created_at"]
    assert client.get(answer.headers["Location"]).json() == upload | {"received": []}
    assert client.get("/v1/uploads").json()["data"] == [upload]


def test_parts_in_any_order_become_the_dataset_that_a_post_would_make(gateway, client, content):
    upload = begin(client, content, sha256=hashlib.sha256(content).hexdigest())
    for n in (3, 1, 4, 2):
        answer = put(client, upload, n, pieces(content)[n])
        assert answer.status_code == 200, answer.text
        assert answer.json()["sha256"] == hashlib.sha256(pieces(content)[n]).hexdigest()
    assert [part["n"] for part in client.get(f"/v1/uploads/{upload}").json()["received"]] == [1, 2, 3, 4]
    answer = complete(client, upload)
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    posted = client.post("/v1/datasets", files={"file": ("pets", content)}, data={"name": "pets"}).json()
    own = {"id", "created_at"}
    assert {k: v for k, v in dataset.items() if k not in own} == {k: v for k, v in posted.items() if k not in own}
    assert answer.headers["Location"] == f"/v1/datasets/{dataset['id']}"
    with gateway.blobs.open(dataset["sha256"]) as stored:
        assert stored.read() == content
    told = client.get(f"/v1/uploads/{upload}").json()
    assert (told["status"], told["dataset"], told["received"]) == ("complete", dataset["id"], [])
    with gateway.database.session() as session:
        kept = session.execute(text("SELECT sha256 FROM blobs")).scalars().all()
    assert not {hashlib.sha256(part).hexdigest() for part in pieces(content).values()} & set(kept)


def test_complete_again_gives_the_same_dataset(client, content):
    upload = begin(client, content)
    put_all(client, upload, content)
    first = complete(client, upload).json()
    again = complete(client, upload)
    assert (again.status_code, again.json()) == (201, first)
    assert len(client.get("/v1/datasets").json()["data"]) == 1
    problem = put(client, upload, 1, pieces(content)[1])
    assert (problem.status_code, problem.json()["code"]) == (409, "upload_completed")


def test_complete_by_several_at_once_makes_one_dataset(client, content):
    upload = begin(client, content)
    put_all(client, upload, content)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: complete(client, upload), range(4)))
    assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(client.get("/v1/datasets").json()["data"]) == 1


def test_two_gateways_and_one_that_starts_anew_share_an_upload(gateway, client, tenant, content):
    upload = begin(client, content)
    assert put(client, upload, 2, pieces(content)[2]).status_code == 200
    with gateway.serving(create_app(gateway.settings)) as url, gateway.client(tenant) as other:
        other.base_url = url
        assert [part["n"] for part in other.get(f"/v1/uploads/{upload}").json()["received"]] == [2]
        with ThreadPoolExecutor(3) as threads:
            sent = threads.map(lambda n: put((client, other)[n % 2], upload, n, pieces(content)[n]), (1, 3, 4))
            assert {answer.status_code for answer in sent} == {200}
        dataset = complete(other, upload)
        assert dataset.status_code == 201, dataset.text
    assert complete(client, upload).json() == dataset.json()


def test_the_same_part_twice_changes_nothing_and_another_is_refused(gateway, client, content):
    upload = begin(client, content)
    part = pieces(content)[1]
    first = put(client, upload, 1, part)
    before = gateway.kept()
    again = put(client, upload, 1, part)
    assert (again.status_code, again.json()) == (200, first.json())
    other = put(client, upload, 1, bytes(len(part)))
    assert (other.status_code, other.json()["code"]) == (409, "part_conflict")
    assert first.json()["sha256"] in other.json()["detail"]
    assert gateway.kept() == before
    assert len(client.get(f"/v1/uploads/{upload}").json()["received"]) == 1


def test_different_bytes_for_one_part_at_once(gateway, client, content):
    upload = begin(client, content)
    begun = threading.Barrier(2)

    def send(part):
        begun.wait()
        return put(client, upload, 1, part).status_code

    with ThreadPoolExecutor(2) as threads:
        statuses = list(threads.map(send, (pieces(content)[1], bytes(PART))))
    assert sorted(statuses) == [200, 409]


def test_parts_of_equal_bytes(client, content):
    blank = bytes(2 * PART)
    upload = begin(client, blank)
    put_all(client, upload, blank)
    assert [part["n"] for part in client.get(f"/v1/uploads/{upload}").json()["received"]] == [1, 2]
    assert client.delete(f"/v1/uploads/{upload}").status_code == 204


@pytest.mark.parametrize(
    ("n", "part", "digest", "status", "code"),
    [
        (1, bytes(PART), digest_of(b"other"), 422, "digest_mismatch"),
        (1, bytes(PART), "", 422, "validation_error"),
        (1, bytes(PART), "md5=:rL0Y20zC+Fzt72VPzMSk2A==:", 422, "validation_error"),
        (1, bytes(PART), "sha-256=:AAAA:", 422, "validation_error"),
        (1, bytes(PART - 1), None, 422, "validation_error"),
        (1, b"", None, 422, "validation_error"),
        (1, bytes(PART + 1), None, 413, "payload_too_large"),
        (4, bytes(PART), None, 413, "payload_too_large"),
        (1, bytes(80 << 20), None, 413, "payload_too_large"),
        (0, bytes(PART), None, 404, "not_found"),
        (5, bytes(PART), None, 404, "not_found"),
        (2**70, bytes(PART), None, 404, "not_found"),
        ("x", bytes(PART), None, 422, "validation_error"),
    ],
)
def test_a_bad_part_is_refused_and_nothing_is_kept(gateway, client, content, n, part, digest, status, code):
    upload = begin(client, content)
    before = gateway.kept()
    headers = {} if digest == "" else {"Content-Digest": digest or digest_of(part)}
    answer = client.put(f"/v1/uploads/{upload}/parts/{n}", content=part, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert gateway.kept() == before
    assert client.get(f"/v1/uploads/{upload}").json()["received"] == []


def test_too_long_a_part_of_unknown_length(gateway, client, content):
    upload = begin(client, content)
    before = gateway.kept()
    answer = client.put(
        f"/v1/uploads/{upload}/parts/1",
        content=(bytes(1 << 20) for _ in range(4)),
        headers={"Content-Digest": digest_of(bytes(4 << 20))},
    )
    assert (answer.status_code, answer.json()["detail"]) == (413, f"the part has {4 << 20} bytes, expected {PART}")
    assert gateway.kept() == before


def test_complete_too_early_names_what_is_missing(gateway, client, content):
    upload = begin(client, content)
    put(client, upload, 3, pieces(content)[3])
    answer = complete(client, upload)
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_incomplete")
    assert answer.json()["detail"] == "3 of 4 parts are missing: 1, 2, 4"
    assert client.get("/v1/datasets").json()["data"] == []


def test_a_whole_of_another_sum_is_refused(gateway, client, content):
    upload = begin(client, content, sha256="0" * 64)
    put_all(client, upload, content)
    before = gateway.kept()
    answer = complete(client, upload)
    assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (422, "digest_mismatch", "sha256")
    assert gateway.kept() == before


def test_what_is_no_archive_is_refused_as_by_a_post(gateway, client):
    junk = b"no archive " * 10_000
    upload = begin(client, junk)
    put_all(client, upload, junk)
    before = gateway.kept()
    answer = complete(client, upload)
    posted = client.post("/v1/datasets", files={"file": ("pets", junk)}, data={"name": "pets"})
    problem, expected = answer.json(), posted.json()
    assert (answer.status_code, problem["code"], problem["detail"]) == (422, "not_an_archive", expected["detail"])
    assert gateway.kept() == before
    assert client.delete(f"/v1/uploads/{upload}").status_code == 204


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"size_bytes": 0}, 422, "size_bytes"),
        ({"size_bytes": -1}, 422, "size_bytes"),
        ({"size_bytes": 2**80}, 422, "size_bytes"),
        ({"size_bytes": 9 << 20}, 413, "size_bytes"),
        ({"part_bytes": 1}, 422, "part_bytes"),
        ({"part_bytes": 1 << 30}, 422, "part_bytes"),
        ({"sha256": "abc"}, 422, "sha256"),
        ({"name": " "}, 422, "name"),
        ({"purpose": "backbone"}, 422, "purpose"),
        ({"modality": "sound"}, 422, "modality"),
        ({"colour": "red"}, 422, "colour"),
        ({"name": "a\x00b"}, 422, None),
    ],
)
def test_a_bad_announcement_is_refused(client, fields, status, param):
    answer = client.post("/v1/uploads", json={"name": "pets", "size_bytes": 1} | fields)
    assert (answer.status_code, answer.json()["param"]) == (status, param), answer.text
    assert client.get("/v1/uploads").json()["data"] == []


def test_too_many_parts(gateway, client, monkeypatch):
    limits = gateway.settings.model_copy(update={"max_upload_bytes": 2 << 30})
    monkeypatch.setitem(gateway.app.state.parts.__dict__, "settings", limits)
    answer = client.post("/v1/uploads", json={"name": "pets", "size_bytes": 1 << 30, "part_bytes": PART})
    assert (answer.status_code, answer.json()["param"]) == (422, "part_bytes")


def test_limits_of_a_tenant(gateway, client, monkeypatch):
    limits = gateway.settings.model_copy(update={"max_uploads": 2, "max_stored_bytes": 3 << 20})
    monkeypatch.setitem(gateway.app.state.parts.__dict__, "settings", limits)
    first = client.post("/v1/uploads", json={"name": "a", "size_bytes": 2 << 20}).json()
    answer = client.post("/v1/uploads", json={"name": "b", "size_bytes": 2 << 20})
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded"), "both would not fit"
    assert client.post("/v1/uploads", json={"name": "b", "size_bytes": 1 << 20}).status_code == 201
    answer = client.post("/v1/uploads", json={"name": "c", "size_bytes": 1})
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert client.delete(f"/v1/uploads/{first['id']}").status_code == 204
    assert client.post("/v1/uploads", json={"name": "c", "size_bytes": 1}).status_code == 201


def test_delete_drops_the_parts(gateway, client, content):
    before = gateway.kept()
    upload = begin(client, content)
    put_all(client, upload, content)
    assert gateway.kept() != before
    assert client.delete(f"/v1/uploads/{upload}").status_code == 204
    assert gateway.kept() == before
    for answer in (client.get(f"/v1/uploads/{upload}"), complete(client, upload), put(client, upload, 1, b"x")):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_an_upload_of_another_tenant_does_not_exist(gateway, client, tenant, content):
    upload = begin(client, content)
    put_all(client, upload, content)
    with gateway.client(f"{tenant}-other") as stranger:
        for answer in (
            stranger.get(f"/v1/uploads/{upload}"),
            put(stranger, upload, 1, pieces(content)[1]),
            complete(stranger, upload),
            stranger.delete(f"/v1/uploads/{upload}"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert complete(client, upload).status_code == 201


def test_an_expired_upload_is_gone_and_the_sweeper_takes_its_parts(gateway, client, content):
    before = gateway.kept()
    upload = begin(client, content)
    put_all(client, upload, content)
    with gateway.database.session() as session:
        session.execute(text("UPDATE uploads SET expires_at = now() WHERE id = :id"), {"id": upload})
    assert client.get(f"/v1/uploads/{upload}").status_code == 404
    assert complete(client, upload).status_code == 404
    assert uploads.delete_expired(gateway.database, gateway.blobs) == 1
    assert gateway.kept() == before
    with gateway.database.session() as session:
        assert session.query(UploadPart).filter_by(upload_id=upload).count() == 0


def test_the_dataset_of_an_upload_may_be_deleted(client, content):
    upload = begin(client, content)
    put_all(client, upload, content)
    dataset = complete(client, upload).json()["id"]
    assert client.delete(f"/v1/datasets/{dataset}").status_code == 204
    answer = complete(client, upload)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
