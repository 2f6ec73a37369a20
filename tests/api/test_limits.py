"""Limits of a key and of a tenant: told in headers, answered with 429, and nothing is left behind."""

import httpx
import pytest

from service.rate_limits import RateLimiter

WRONG = {"Authorization": "Bearer mr_0_wrong"}


@pytest.fixture
def limit(gateway, monkeypatch):
    """Sets limits of the running gateway, which counts from nothing."""
    parts = gateway.app.state.parts

    def change(**values):
        monkeypatch.setitem(parts.__dict__, "settings", parts.settings.model_copy(update=values))
        monkeypatch.setitem(parts.__dict__, "rate_limiter", RateLimiter(None))

    return change


def _problem(answer, status, code):
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    return problem["detail"]


def test_a_key_has_so_many_requests_a_minute(gateway, tenant, client, limit):
    limit(requests_per_minute=2)
    answers = [client.get("/v1/jobs") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "more than 2 requests" in _problem(answers[-1], 429, "rate_limited")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert answers[0].headers["RateLimit-Policy"] == '"requests";q=2;w=60'
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=1", "r=0", "r=0"]
    with gateway.client(tenant) as other:
        assert other.get("/v1/jobs").status_code == 200, "another key of the tenant has a limit of its own"


def test_no_limit_where_it_is_0(client, limit):
    limit(requests_per_minute=0)
    answer = client.get("/v1/jobs")
    assert answer.status_code == 200
    assert "RateLimit" not in answer.headers


def test_what_needs_no_key_is_not_limited(client, limit):
    limit(requests_per_minute=1)
    for path in ("/healthz", "/readyz", "/metrics", "/", "/openapi.json"):
        assert [client.get(path).status_code for _ in range(2)] == [200, 200], path


def test_wrong_keys_of_an_address(gateway, client, limit):
    limit(wrong_keys_per_minute=2)
    url = f"{gateway.url}/v1/jobs"
    for _ in range(2):
        _problem(httpx.get(url, headers=WRONG, trust_env=False), 401, "unauthenticated")
    answer = httpx.get(url, headers=WRONG, trust_env=False)
    assert "2 wrong API keys came from 127.0.0.1" in _problem(answer, 429, "rate_limited")
    assert int(answer.headers["Retry-After"]) >= 1
    _problem(client.get("/v1/jobs"), 429, "rate_limited")
    _problem(httpx.get(url, trust_env=False), 401, "unauthenticated")


def test_right_keys_and_no_keys_do_not_count_as_wrong(gateway, client, limit):
    limit(wrong_keys_per_minute=1)
    for _ in range(3):
        assert client.get("/v1/jobs").status_code == 200
        assert httpx.get(f"{gateway.url}/v1/jobs", trust_env=False).status_code == 401
    limit(wrong_keys_per_minute=0)
    for _ in range(3):
        assert httpx.get(f"{gateway.url}/v1/jobs", headers=WRONG, trust_env=False).status_code == 401
    assert client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize("quota", [{"max_datasets": 1}, {"max_stored_bytes": 100}])
def test_a_dataset_over_quota_is_not_stored(gateway, client, stand_in, archive, limit, quota):
    limit(**quota)
    stand_in.dataset()
    before = gateway.kept()
    answer = client.post("/v1/datasets", files={"file": ("a.zip", archive({"cat": 2, "dog": 2}))})
    detail = _problem(answer, 429, "quota_exceeded")
    assert str(next(iter(quota.values()))) in detail
    assert "limit" in detail
    assert gateway.kept() == before


@pytest.mark.parametrize("quota", [{"max_backbones": 1}, {"max_stored_bytes": 10}])
def test_a_backbone_over_quota_is_not_stored(gateway, client, stand_in, predictor, weights, limit, quota):
    stand_in.backbone()
    limit(**quota)
    before = gateway.kept()
    content = weights({"fc": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4)
    form = {"name": "b", "library": "builtin", "architecture": "cifar_resnet20"}
    answer = client.post("/v1/backbones", data=form, files={"file": ("w.safetensors", content)})
    assert "limit" in _problem(answer, 429, "quota_exceeded")
    assert gateway.kept() == before


def test_a_job_whose_adapter_would_be_over_quota(client, stand_in, limit):
    dataset = stand_in.dataset()
    job = stand_in.job(dataset)
    stand_in.finish(stand_in.claim(job), adapter=b"adapter")
    failed = stand_in.job(dataset)
    client.post(f"/v1/jobs/{failed}/cancel")
    headers = {"Idempotency-Key": "before"}
    spec = {"kind": "reprogram", "dataset": dataset}
    earlier = client.post("/v1/jobs", json=spec, headers=headers).json()["id"]
    limit(max_adapters=1)
    before = client.get("/v1/jobs").json()
    for answer in (client.post("/v1/jobs", json=spec), client.post(f"/v1/jobs/{failed}/retry")):
        assert "there are 1 adapters, and 1 is the limit" in _problem(answer, 429, "quota_exceeded")
    assert client.get("/v1/jobs").json() == before
    assert client.post("/v1/jobs", json=spec, headers=headers).json()["id"] == earlier
    assert client.post("/v1/jobs", json=spec | {"kind": "diagnose"}).status_code == 201, "leaves no adapter"
