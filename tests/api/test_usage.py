"""Usage over HTTP: a key sees its own, an admin's key all of the tenant."""

from datetime import UTC, datetime, timedelta

import pytest


def _usage(client, **parameters):
    answer = client.get("/v1/usage", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_what_was_done_is_told(client, stand_in, archive, predictor, tenant, gateway):
    content = archive({"cat": 2, "dog": 2})
    assert client.post("/v1/datasets", files={"file": ("a.zip", content)}).status_code == 201
    dataset = stand_in.dataset()
    job = client.post("/v1/jobs", json={"kind": "reprogram", "dataset": dataset}).json()["id"]
    adapter = stand_in.finish(stand_in.claim(job), adapter=b"adapter")
    answer = client.post(f"/v1/adapters/{adapter}/predict", files=[("images", ("a", b"x")), ("images", ("b", b"x"))])
    assert answer.status_code == 200, answer.text
    told = _usage(client)
    (mine,) = told["keys"]
    assert mine.pop("key").startswith("key_")
    assert mine.pop("name") == "test"
    assert told["total"] == mine
    assert mine["requests"] == 4, "this one included"
    assert (mine["uploads"], mine["uploaded_bytes"]) == (1, len(content))
    assert (mine["predictions"], mine["predicted_images"]) == (1, 2)
    assert mine["jobs"] == {"reprogram": {"succeeded": 1}}
    compute = mine["compute"]["cpu"]
    assert (compute["attempts"], compute["images"] > 0, compute["seconds"] >= 0) == (1, True, True)
    quotas = told["quotas"]
    assert {name: quota["used"] for name, quota in quotas.items()} == {
        "unfinished_jobs": 0,
        "datasets": 2,
        "backbones": 0,
        "adapters": 1,
        "stored_bytes": len(content) + 1 + len(b"adapter"),
    }
    assert quotas["datasets"]["limit"] == gateway.settings.max_datasets
    assert told["requests_per_minute"] == gateway.settings.requests_per_minute
    today = datetime.now(UTC).date()
    assert (told["from"], told["to"]) == (str(today - timedelta(days=29)), str(today))


def test_who_sees_whose(gateway, tenant, client, stand_in):
    dataset = stand_in.dataset()
    client.post("/v1/jobs", json={"kind": "reprogram", "dataset": dataset})
    with gateway.client(tenant, scopes=("read",)) as reader, gateway.client(f"{tenant}-other") as stranger:
        reader.get("/v1/jobs")
        own = _usage(reader)
        assert [key["requests"] for key in own["keys"]] == [2]
        assert own["total"]["jobs"] == {}
        assert own["quotas"]["unfinished_jobs"]["used"] == 1, "quotas are of the tenant"
        everyone = _usage(client)
        assert {key["requests"] for key in everyone["keys"]} == {2}
        assert everyone["total"]["requests"] == 4
        assert everyone["total"]["jobs"] == {"reprogram": {"queued": 1}}
        away = _usage(stranger)
        assert [key["requests"] for key in away["keys"]] == [1]
        assert away["quotas"]["datasets"]["used"] == 0


def test_retries_and_validations_belong_to_the_key_that_asked(client, stand_in, archive):
    job = stand_in.job()
    client.post(f"/v1/jobs/{job}/cancel")
    client.post(f"/v1/jobs/{job}/retry")
    told = {key["key"]: key["jobs"] for key in _usage(client)["keys"]}
    assert told.pop(None) == {"reprogram": {"cancelled": 1}}
    assert list(told.values()) == [{"reprogram": {"queued": 1}}]


def test_a_period_of_the_past_is_empty(client, stand_in):
    stand_in.job()
    told = _usage(client, **{"from": "2020-01-01", "to": "2020-02-01"})
    assert told["keys"] == []
    assert told["total"]["requests"] == 0
    assert _usage(client, to="0001-01-05")["from"] == "0001-01-01"
    assert _usage(client, **{"from": "9999-12-31", "to": "9999-12-31"})["keys"] == []


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"from": "2026-02-01", "to": "2026-01-01"}, "from"),
        ({"from": "9999-12-31"}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-02-30"}, "to"),
        ({"to": ""}, "to"),
        ({"to": "0"}, "to"),
        ({"first": "2026-01-01"}, "first"),
    ],
)
def test_periods_that_are_none(client, parameters, param):
    answer = client.get("/v1/usage", params=parameters)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["param"]) == (422, "validation_error", param)
