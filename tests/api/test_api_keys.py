"""Who may do what."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest


def _ask(gateway, header):
    headers = {} if header is None else {"Authorization": header}
    return httpx.get(f"{gateway.url}/v1/jobs", headers=headers, trust_env=False)


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer mr_a_b", "Basic bXI6bXI=", "Bearer \xe9", "Bearer mr__"])
def test_without_a_good_key(gateway, header):
    answer = _ask(gateway, None if header is None else header.encode("latin-1"))
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_expired_and_revoked_keys(gateway, tenant, client):
    expired = gateway.key(tenant, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert _ask(gateway, f"Bearer {expired}").status_code == 401
    made = client.post("/v1/api-keys", json={"name": "for a while", "scopes": ["read"]}).json()
    assert _ask(gateway, f"Bearer {made['key']}").status_code == 200
    assert client.delete(f"/v1/api-keys/{made['id']}").json()["revoked_at"]
    assert _ask(gateway, f"Bearer {made['key']}").status_code == 401


def test_the_secret_is_shown_once(client):
    made = client.post("/v1/api-keys", json={"name": "ci", "scopes": ["read", "write"]})
    assert made.status_code == 201
    assert made.json()["key"] not in client.get("/v1/api-keys").text
    assert made.json()["id"] in client.get("/v1/api-keys").text


def test_scopes(gateway, tenant, stand_in):
    job = stand_in.job()
    with gateway.client(tenant, scopes=("read",)) as reader:
        assert reader.get(f"/v1/jobs/{job}").status_code == 200
        for method, path in (
            ("POST", f"/v1/jobs/{job}/cancel"),
            ("DELETE", f"/v1/jobs/{job}"),
            ("GET", "/v1/api-keys"),
        ):
            answer = reader.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    with gateway.client(tenant, scopes=("write",)) as writer:
        assert writer.post(f"/v1/jobs/{job}/cancel").status_code == 202
        assert writer.post("/v1/api-keys", json={"name": "x", "scopes": ["admin"]}).status_code == 403


@pytest.mark.parametrize(
    "change",
    [
        {"scopes": []},
        {"scopes": ["root"]},
        {"tenant": "y"},
        {"name": "x\u0000"},
        {"expires_at": "2030-01-01T00:00:00"},
        {"expires_at": 1893456000},
        {"expires_at": "1893456000"},
        {"expires_at": "-5"},
    ],
)
def test_bad_keys_are_refused(client, change):
    answer = client.post("/v1/api-keys", json={"name": "x", "scopes": ["read"]} | change)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
