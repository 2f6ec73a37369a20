"""No tenant sees another's anything. Walks the OpenAPI document, so a new route is covered or fails."""

import re

import httpx
import pytest

from service import aliases, uploads, webhooks

METHODS = ("get", "put", "post", "patch", "delete")
BODIES = {
    "/v1/adapters/{adapter_id}/predict": {"files": {"images": ("a.png", b"x")}},
    "/v1/adapters/aliases/{name}": {"json": {"adapter": "ad_none"}},
    "/v1/uploads/{upload_id}/parts/{n}": {"content": b"x"},
}


@pytest.fixture
def owned(gateway, tenant, client, stand_in):
    """An id of each kind for every path parameter of the API, all of one tenant."""
    dataset, backbone, job = stand_in.dataset(), stand_in.backbone(), stand_in.job()
    claim = stand_in.claim(job)
    files = {"report.html": ("text/html", b"x"), "plots/spectrum.svg": ("image/svg+xml", b"x")}
    adapter = stand_in.finish(claim, adapter=b"adapter", spectrum=([1.0], [1.0]), files=files)
    key = client.get("/v1/api-keys").json()["data"][0]["id"]
    with gateway.database.session() as session:
        webhook = webhooks.create(session, tenant=tenant, url="https://hooks.example", events=["*"]).id
        delivery = webhooks.queue_test(session, tenant, webhook).id
        aliases.put(session, tenant, "spectrum.svg", adapter)
        upload = uploads.create(
            session,
            gateway.settings,
            tenant=tenant,
            purpose="dataset",
            name="pets",
            modality="image",
            size_bytes=1,
            part_bytes=1,
        ).id
    return {
        "dataset_id": dataset,
        "backbone_id": backbone,
        "job_id": job,
        "adapter_id": adapter,
        "key_id": key,
        "webhook_id": webhook,
        "delivery_id": delivery,
        "upload_id": upload,
        "n": "1",
        "name": "spectrum.svg",
    }


@pytest.fixture
def stranger(gateway, tenant):
    with gateway.client(f"{tenant}-other") as client:
        yield client


def _operations(client):
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method in operations:
            assert method in METHODS
            yield method, path


def _filled(path, ids):
    name = "report.html" if "artifacts" in path else ids["name"]
    return re.sub(r"\{(\w+)(:path)?\}", lambda match: {**ids, "name": name}[match[1]], path)


def test_another_tenants_id_is_not_found(client, stranger, owned):
    with_ids = [(method, path) for method, path in _operations(client) if "{" in path]
    assert len(with_ids) > 20
    for method, path in with_ids:
        answer = stranger.request(method, _filled(path, owned), **BODIES.get(path, {}))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), f"{method} {path}: {answer.text}"


def test_the_owner_finds_what_the_stranger_does_not(client, owned):
    for method, path in _operations(client):
        if method == "get" and "{" in path:
            assert client.get(_filled(path, owned)).status_code == 200, path


def test_no_list_shows_another_tenants_ids(client, stranger, owned):
    ids = [value for name, value in owned.items() if name not in ("name", "n")]
    for method, path in _operations(client):
        if method == "get" and "{" not in path:
            text = stranger.get(path).text
            assert not [value for value in ids if value in text], path


def test_every_operation_under_v1_needs_a_key(gateway, client, owned):
    for method, path in _operations(client):
        if path.startswith("/v1/"):
            url = gateway.url + _filled(path, owned)
            answer = httpx.request(method, url, trust_env=False, **BODIES.get(path, {}))
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), f"{method} {path}"


def test_ids_in_a_spec_are_the_tenants_own(stranger, stand_in, owned):
    spec = {"kind": "diagnose", "dataset": owned["dataset_id"]}
    assert stranger.post("/v1/jobs", json=spec).json()["code"] == "not_found"


def test_backbones_and_adapters_in_a_spec_are_the_tenants_own(gateway, stand_in, owned, tenant):
    other = type(stand_in)(gateway, f"{tenant}-third")
    with gateway.client(other.tenant) as client:
        for part in ({"backbone": owned["backbone_id"]}, {"adapter": owned["adapter_id"]}):
            answer = client.post("/v1/jobs", json={"kind": "diagnose", "dataset": other.dataset()} | part)
            assert (answer.status_code, answer.json()["param"]) == (404, next(iter(part)))
