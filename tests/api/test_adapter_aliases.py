"""Names for adapters: made, moved, followed, and no way to another tenant's."""

import pytest


@pytest.fixture
def adapters(stand_in):
    return [stand_in.finish(stand_in.claim(stand_in.job()), adapter=content) for content in (b"first", b"second")]


def put(client, name, adapter):
    return client.put(f"/v1/adapters/aliases/{name}", json={"adapter": adapter})


def test_an_alias_is_made_moved_and_followed(client, adapters):
    first, second = adapters
    answer = put(client, "pets", first)
    assert (answer.status_code, answer.json()["adapter"]) == (201, first), answer.text
    assert client.get("/v1/adapters/pets").json() == client.get(f"/v1/adapters/{first}").json()
    assert client.get("/v1/adapters/pets/content").content == b"first"
    moved = put(client, "pets", second)
    assert (moved.status_code, moved.json()["adapter"]) == (200, second)
    assert moved.json()["created_at"] == answer.json()["created_at"] < moved.json()["updated_at"]
    assert client.get("/v1/adapters/pets/content").content == b"second"
    assert client.get("/v1/adapters/aliases").json()["data"] == [moved.json()]


def test_what_is_read_by_a_name_is_not_kept_as_if_it_never_changed(client, adapters):
    put(client, "pets", adapters[0])
    by_name = client.get("/v1/adapters/pets/content")
    by_id = client.get(f"/v1/adapters/{adapters[0]}/content")
    assert by_name.headers["etag"] == by_id.headers["etag"]
    assert by_name.headers["cache-control"] == "private, no-cache"
    assert "immutable" in by_id.headers["cache-control"]
    put(client, "pets", adapters[1])
    held = {"If-None-Match": by_name.headers["etag"]}
    assert client.get("/v1/adapters/pets/content", headers=held).content == b"second"


def test_predictions_follow_it_and_name_the_adapter(client, predictor, adapters):
    put(client, "pets", adapters[1])
    answer = client.post("/v1/adapters/pets/predict", files={"images": ("a.png", b"x")})
    assert (answer.status_code, answer.json()["adapter"]) == (200, adapters[1]), answer.text
    assert predictor[0]["adapter"] == adapters[1]


def test_aliases_are_listed_by_name(client, adapters):
    for name in ("b-2", "c_3", "a.1"):
        assert put(client, name, adapters[0]).status_code == 201
    assert [alias["name"] for alias in client.get("/v1/adapters/aliases").json()["data"]] == ["a.1", "b-2", "c_3"]


def test_delete(client, adapters):
    put(client, "pets", adapters[0])
    answer = client.delete(f"/v1/adapters/{adapters[0]}")
    assert (answer.status_code, answer.json()["code"]) == (409, "adapter_in_use")
    assert "pets" in answer.json()["detail"]
    assert client.delete("/v1/adapters/aliases/pets").status_code == 204
    assert client.delete("/v1/adapters/aliases/pets").json()["code"] == "not_found"
    assert client.get("/v1/adapters/pets").json()["code"] == "not_found"
    assert client.delete(f"/v1/adapters/{adapters[0]}").status_code == 204


@pytest.mark.parametrize("name", ["ad_pets", "aliases", "-a", ".a", "a b", "a:b", "x" * 101, "caf\u00e9"])
def test_refuses_a_name(client, adapters, name):
    answer = put(client, name, adapters[0])
    assert (answer.status_code, answer.json()["param"]) == (422, "name"), answer.text
    assert client.get("/v1/adapters/aliases").json()["data"] == []


@pytest.mark.parametrize("body", [{}, {"adapter": 1}, {"adapter": ""}, {"adapter": "ad_x", "colour": "red"}])
def test_refuses_a_body(client, body):
    assert client.put("/v1/adapters/aliases/pets", json=body).json()["code"] == "validation_error"


def test_leads_to_no_adapter_of_another_tenant_nor_to_none(gateway, client, tenant, adapters):
    with gateway.client(f"{tenant}-other") as stranger:
        for adapter in (adapters[0], "ad_none", "pets"):
            answer = put(stranger, "pets", adapter)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        put(client, "pets", adapters[0])
        for answer in (
            stranger.get("/v1/adapters/pets"),
            stranger.get("/v1/adapters/pets/content"),
            stranger.post("/v1/adapters/pets/predict", files={"images": ("a.png", b"x")}),
            stranger.delete("/v1/adapters/aliases/pets"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert stranger.get("/v1/adapters/aliases").json()["data"] == []


def test_the_same_name_of_two_tenants(gateway, client, tenant, stand_in, adapters):
    other = type(stand_in)(gateway, f"{tenant}-other")
    theirs = other.finish(other.claim(other.job()), adapter=b"theirs")
    with gateway.client(other.tenant) as stranger:
        assert put(client, "pets", adapters[0]).status_code == 201
        assert put(stranger, "pets", theirs).status_code == 201
        assert client.get("/v1/adapters/pets").json()["id"] == adapters[0]
        assert stranger.get("/v1/adapters/pets").json()["id"] == theirs


def test_a_spec_takes_no_alias(client, stand_in, adapters):
    put(client, "pets", adapters[0])
    answer = client.post("/v1/jobs", json={"kind": "diagnose", "dataset": stand_in.dataset(), "adapter": "pets"})
    assert (answer.status_code, answer.json()["param"]) == (404, "adapter")
