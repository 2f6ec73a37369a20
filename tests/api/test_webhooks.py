"""Webhooks over HTTP: what is refused, what is shown, who may, and a job told of from end to end."""

from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook as Verifier

from service.deliveries import Deliverer
from tests.service.receiving import receiving

URL = "https://93.184.215.14/hook"  # an address, so that no name server is asked; nothing is sent there


@pytest.fixture
def webhook(client):
    answer = client.post("/v1/webhooks", json={"url": URL})
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def local(gateway, monkeypatch) -> Iterator[None]:
    """The gateway may call this machine, as under `mr up`."""
    parts = gateway.app.state.parts
    changed = parts.settings.model_copy(update={"allow_loopback_urls": True})
    monkeypatch.setitem(parts.__dict__, "settings", changed)


def test_create_read_list_delete(client, webhook):
    assert webhook["secret"].startswith("whsec_")
    assert (webhook["url"], webhook["events"], webhook["disabled_at"]) == (URL, ["*"], None)
    shown = {name: value for name, value in webhook.items() if name != "secret"}
    assert client.get(f"/v1/webhooks/{webhook['id']}").json() == shown
    made = client.post(
        "/v1/webhooks", json={"url": URL, "events": ["job.failed", "job.succeeded"], "description": "ends"}
    )
    assert made.headers["Location"] == f"/v1/webhooks/{made.json()['id']}"
    listed = client.get("/v1/webhooks")
    assert [row["id"] for row in listed.json()["data"]] == [made.json()["id"], webhook["id"]]
    assert [row["description"] for row in listed.json()["data"]] == ["ends", None]
    assert "whsec_" not in listed.text
    rest = client.get("/v1/webhooks", params={"after": made.json()["id"], "limit": 1}).json()
    assert ([row["id"] for row in rest["data"]], rest["has_more"]) == ([webhook["id"]], False)
    assert client.delete(f"/v1/webhooks/{webhook['id']}").status_code == 204
    assert client.get(f"/v1/webhooks/{webhook['id']}").status_code == 404
    assert client.delete(f"/v1/webhooks/{webhook['id']}").status_code == 404


@pytest.mark.parametrize(
    ("change", "code", "param", "said"),
    [
        ({"url": "http://93.184.215.14/"}, "url_not_allowed", "url", "expected https"),
        ({"url": "https://10.0.0.1/"}, "url_not_allowed", "url", "not public"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, "url_not_allowed", "url", "not public"),
        ({"url": "https://[::ffff:127.0.0.1]/"}, "url_not_allowed", "url", "not public"),
        ({"url": "https://localhost/"}, "url_not_allowed", "url", "not public"),
        ({"url": "https://nowhere.invalid/"}, "url_not_allowed", "url", "does not resolve"),
        ({"url": "https://a:b@93.184.215.14/"}, "url_not_allowed", "url", "user name or password"),
        ({"url": "https://93.184.215.14:25/"}, "url_not_allowed", "url", "expected 443"),
        ({"url": "hooks"}, "url_not_allowed", "url", "names no host"),
        ({"url": ""}, "validation_error", "url", "at least 1 character"),
        ({"url": "https://" + "a" * 3000}, "validation_error", "url", "at most 2048 characters"),
        ({"url": None}, "validation_error", "url", "valid string"),
        ({"url": "https://93.184.215.14/\x00"}, "validation_error", "url", "NUL"),
        ({"description": "\x00"}, "validation_error", "description", "NUL"),
        ({"description": "x" * 501}, "validation_error", "description", "at most 500 characters"),
        ({"events": []}, "validation_error", "events", "at least 1 item"),
        ({"events": ["job.done"]}, "validation_error", "events.0", "'job.succeeded'"),
        ({"events": "job.failed"}, "validation_error", "events", "valid list"),
        ({"events": ["*"] * 21}, "validation_error", "events", "at most 20 items"),
        ({"secret": "whsec_AAAA"}, "validation_error", "secret", "allowed: url, events, description"),
    ],
)
def test_bad_webhooks_are_refused_and_leave_nothing(client, change, code, param, said):
    answer = client.post("/v1/webhooks", json={"url": URL} | change)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["param"]) == (422, code, param), answer.text
    assert said in problem["detail"]
    assert client.get("/v1/webhooks").json()["data"] == []


def test_bodies_that_are_no_webhook(client):
    answer = client.post("/v1/webhooks", content=b"{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
    answer = client.post("/v1/webhooks", json={})
    assert (answer.status_code, answer.json()["detail"]) == (422, "url is missing")


def test_limit_of_a_tenant(gateway, client):
    limit = gateway.settings.max_webhooks
    for _ in range(limit):
        assert client.post("/v1/webhooks", json={"url": URL}).status_code == 201
    answer = client.post("/v1/webhooks", json={"url": URL})
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert f"{limit} is the limit" in answer.json()["detail"]
    assert len(client.get("/v1/webhooks?limit=200").json()["data"]) == limit


def test_scopes(gateway, tenant, webhook):
    path = f"/v1/webhooks/{webhook['id']}"
    with gateway.client(tenant, scopes=("read",)) as reader:
        for allowed in ("/v1/webhooks", path, f"{path}/deliveries"):
            assert reader.get(allowed).status_code == 200
        for method, refused in (
            ("POST", "/v1/webhooks"),
            ("DELETE", path),
            ("POST", f"{path}/test"),
            ("POST", f"{path}/deliveries/msg_x/redeliver"),
        ):
            body = {"url": URL} if refused == "/v1/webhooks" else None
            answer = reader.request(method, refused, json=body)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), refused
    with gateway.client(tenant, scopes=("write",)) as writer:
        assert writer.post(f"{path}/test").status_code == 202
        assert writer.delete(path).status_code == 204


def test_a_job_told_of_from_end_to_end(gateway, client, stand_in, local):
    with receiving() as receiver:
        made = client.post("/v1/webhooks", json={"url": receiver.url, "events": ["job.succeeded"]}).json()
        test = client.post(f"/v1/webhooks/{made['id']}/test")
        assert (test.status_code, test.json()["status"], test.json()["event"]) == (202, "pending", "webhook.test")
        claim = stand_in.claim(stand_in.job(metadata={"team": "a"}))
        stand_in.finish(claim, {"adapter": "ad_1"})
        settings = gateway.settings.model_copy(update={"allow_loopback_urls": True})
        receiver.answer(204)
        receiver.answer(500)
        assert Deliverer(settings, gateway.database).run_once() >= 2
        messages = [Verifier(made["secret"]).verify(sent.body, dict(sent.headers)) for sent in receiver.requests]
        assert [message["type"] for message in messages] == ["webhook.test", "job.succeeded"]
        assert messages[0]["data"] == {"webhook": made["id"]}
        assert messages[1]["data"]["id"] == claim.job_id
        assert client.get(messages[1]["data"]["links"]["self"]).json()["status"] == "succeeded"

        deliveries = f"/v1/webhooks/{made['id']}/deliveries"
        told, tested = client.get(deliveries).json()["data"]
        assert (tested["id"], tested["status"], tested["response_status"]) == (test.json()["id"], "succeeded", 204)
        assert (told["job"], told["status"], told["attempts"]) == (claim.job_id, "pending", 1)
        assert (told["response_status"], told["error"]) == (500, "the receiver answered 500")
        assert told["next_attempt_at"] > told["last_attempt_at"]
        assert client.get(deliveries, params={"after": told["id"]}).json()["data"] == [tested]

        again = client.post(f"{deliveries}/{told['id']}/redeliver")
        assert (again.status_code, again.json()["id"], again.json()["attempts"]) == (202, told["id"], 0)
        Deliverer(settings, gateway.database).run_once()
        assert receiver.ids[1:] == [told["id"]] * 2
        assert client.get(deliveries).json()["data"][0]["status"] == "succeeded"


def test_a_receiver_that_is_gone(gateway, client, local):
    with receiving() as receiver:
        path = f"/v1/webhooks/{client.post('/v1/webhooks', json={'url': receiver.url}).json()['id']}"
        delivery = client.post(f"{path}/test").json()["id"]
        receiver.answer(410)
        Deliverer(gateway.settings.model_copy(update={"allow_loopback_urls": True}), gateway.database).run_once()
    shown = client.get(path).json()
    assert shown["disabled_at"] is not None
    assert shown["disabled_reason"] == "the receiver answered 410: it is gone"
    for refused in (f"{path}/test", f"{path}/deliveries/{delivery}/redeliver"):
        answer = client.post(refused)
        assert (answer.status_code, answer.json()["code"]) == (409, "webhook_disabled")


def test_unknown_deliveries(client, webhook):
    path = f"/v1/webhooks/{webhook['id']}/deliveries"
    assert client.post(f"{path}/msg_none/redeliver").json()["code"] == "not_found"
    assert client.get(path, params={"after": "msg_none"}).status_code == 404
    assert client.get(path, params={"status": "failed"}).json()["param"] == "status"
