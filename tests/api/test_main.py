"""The shell: what every answer has in common."""

import json
import subprocess
import sys

import httpx
import pytest

from mr_core.job_spec import JOB_KINDS

_PROBE = """
import sys
import api.main
from service.settings import Settings
app = api.main.create_app(Settings(database_url="postgresql://nobody@localhost/none", data_dir=sys.argv[1]))
app.openapi()
import json
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_gateway_starts_without_the_science(tmp_path):
    done = subprocess.run([sys.executable, "-c", _PROBE, str(tmp_path)], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    heavy = {
        "torch",
        "torchvision",
        "timm",
        "open_clip",
        "scipy",
        "matplotlib",
        "sklearn",
        "numpy",
        "PIL",
        "celery",
        "optuna",
    }
    assert not loaded & heavy


def test_request_id_is_kept_or_given(client):
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"
    assert client.get("/healthz", headers={"X-Request-ID": "a b"}).headers["X-Request-ID"].startswith("req_")
    answer = client.get("/v1/jobs/job_none")
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/jobs/%00", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs?after=job_none", 404, "not_found"),
        ("GET", "/v1/jobs?limit=0", 422, "validation_error"),
        ("GET", "/v1/jobs?stattus=failed", 422, "validation_error"),
        ("GET", "/v1/jobs?kind=%00", 422, "validation_error"),
        ("GET", "/v1/jobs?status=done", 422, "validation_error"),
        ("GET", "/v1/jobs?metadata=a", 422, "validation_error"),
    ],
)
def test_refusals_are_problem_documents(client, method, path, status, code):
    answer = client.request(method, path)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem.keys() >= {"type", "title", "status", "code", "detail", "param", "request_id"}


def test_unknown_query_parameter_is_named(client):
    problem = client.get("/v1/jobs?stattus=failed").json()
    assert problem["param"] == "stattus"
    assert "status" in problem["detail"]


def test_a_bug_answers_500_without_details(gateway, client, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("secret inside")

    monkeypatch.setattr("service.jobs.get_job", fail)
    answer = client.get("/v1/jobs/job_x")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text


def test_a_silent_database_answers_503(gateway, tmp_path):
    from api.main import create_app
    from service.settings import Settings

    app = create_app(Settings(data_dir=tmp_path, database_url="postgresql://nobody@127.0.0.1:9/none"))
    with httpx.Client(transport=_InProcess(app), base_url="http://test") as client:
        answer = client.get("/v1/jobs", headers={"Authorization": "Bearer mr_a_b"})
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert answer.headers["Retry-After"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
    app.state.parts.database.dispose()


def test_ready_and_metrics(client):
    ready = client.get("/readyz")
    assert ready.status_code == 200, ready.text
    assert {check["name"] for check in ready.json()["checks"]} >= {"database", "migrations", "blobs"}
    client.get("/v1/jobs/job_none")
    text = client.get("/metrics").text
    assert 'mr_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"}' in text


def test_home_page_and_openapi(client):
    assert "Model reprogramming" in client.get("/").text
    document = client.get("/openapi.json").json()
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["discriminator"]["propertyName"] == "kind"
    assert len(body["oneOf"]) == len(JOB_KINDS)
    assert document["openapi"].startswith("3.1")


def test_every_operation_names_problem_json(client):
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            assert "application/problem+json" in operation["responses"]["4XX"]["content"], path


def test_responses_are_not_sniffed_nor_stored(client):
    headers = client.get("/v1/jobs").headers
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")


class _InProcess(httpx.BaseTransport):
    """The app without a server, for the tests of what no server lets happen."""

    def __init__(self, app):
        self.app = app

    def handle_request(self, request):
        import asyncio

        async def ask():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                answer = await client.request(request.method, str(request.url), headers=request.headers)
                return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

        return asyncio.run(ask())
