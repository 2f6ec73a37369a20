"""The OpenAPI document against the gateway that serves it: hostile requests made from it, and what clients need of it.

The same requests each time, and few of them: `schemathesis run` with more examples finds what these leave.
"""

import json
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks

CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
)
# What is asked of these is asked of real parts elsewhere: they start a predictor, or end the key that asks.
ELSEWHERE = {"create_backbone", "predict_images", "revoke_key"}
EXAMPLES = 6


@pytest.fixture(scope="module")
def document(gateway):
    with gateway.client("contract") as client:
        return client.get("/openapi.json").json()


@pytest.fixture(scope="module")
def key(gateway):
    return gateway.key("contract")


def _operations(document):
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield method, path, operation


def test_requests_made_from_the_document(gateway, document, key, monkeypatch):
    """No server error, no undocumented status, every error a problem document, every answer as its schema says."""
    parts = gateway.app.state.parts
    monkeypatch.setitem(parts.__dict__, "settings", parts.settings.model_copy(update={"requests_per_minute": 0}))
    schema = schemathesis.openapi.from_dict(document)
    headers = {"Authorization": f"Bearer {key}"}
    n_operations = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.definition.raw["operationId"] in ELSEWHERE:
            continue
        n_operations += 1

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        def ask(case):
            response = case.call_and_validate(base_url=gateway.url, headers=headers, checks=CHECKS, timeout=30)
            if response.status_code >= 400:
                problem = json.loads(response.content)
                assert response.headers["content-type"] == ["application/problem+json"], problem
                assert problem["status"] == response.status_code

        ask()
    assert n_operations > 35


def test_answers_about_what_exists(document, client, stand_in):
    """The same checks where the ids are those of things that are there."""
    dataset, backbone, job = stand_in.dataset(), stand_in.backbone(), stand_in.job()
    files = {"report.html": ("text/html", b"x"), "plots/spectrum.svg": ("image/svg+xml", b"x")}
    adapter = stand_in.finish(stand_in.claim(job), adapter=b"adapter", spectrum=([1.0], [1.0]), files=files)
    ids = {"dataset_id": dataset, "backbone_id": backbone, "job_id": job, "adapter_id": adapter, "name": "spectrum.svg"}
    schema, n_asked = schemathesis.openapi.from_dict(document), 0
    for method, path, operation in _operations(document):
        names = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
        if method != "get" or not names or not names <= ids.keys():
            continue
        n_asked += 1
        values = {name: ids[name] for name in names} | ({"name": "report.html"} if "artifacts" in path else {})
        case = schema[path][method].Case(path_parameters=values)
        headers = {"Authorization": client.headers["Authorization"]}
        response = case.call_and_validate(base_url=str(client.base_url), headers=headers, checks=CHECKS)
        assert response.status_code == 200, path
    assert n_asked >= 15


def test_operations_have_the_names_of_their_functions(document):
    names = Counter(operation["operationId"] for _, _, operation in _operations(document))
    assert [name for name, n in names.items() if n > 1] == []
    assert {"create_job", "list_jobs", "read_job", "create_dataset", "read_adapter_content"} <= names.keys()


def test_every_error_is_a_problem_document(document):
    for method, path, operation in _operations(document):
        for status in ("4XX", "5XX"):
            content = operation["responses"][status]["content"]
            assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}, (
                f"{method} {path}"
            )


def test_every_answer_says_what_it_is(document):
    for method, path, operation in _operations(document):
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                assert content.get("schema") is not None, f"{method} {path} {status} {media_type}"


def test_what_generators_stumble_over(document):
    """References that lead nowhere, objects as defaults of unions, parameters that might be null."""

    def parts_of(part):
        yield part
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            yield from parts_of(inner)

    for part in parts_of(document):
        if isinstance(part, dict) and isinstance(part.get("$ref"), str):
            assert part["$ref"].removeprefix("#/components/schemas/") in document["components"]["schemas"]
        if isinstance(part, dict) and "oneOf" in part:
            assert not isinstance(part.get("default"), dict)
    for method, path, operation in _operations(document):
        for parameter in operation.get("parameters", []):
            assert {"type": "null"} not in parameter["schema"].get("anyOf", []), f"{method} {path} {parameter['name']}"
    assert "Default: {" in document["components"]["schemas"]["ReprogramSpec"]["properties"]["trainer"]["description"]


def test_a_line_break_in_a_path_is_nowhere(gateway, key):
    with gateway.client("contract") as client:
        for path in ("/v1/backbones/a%0Ab", "/v1/jobs%0A", "/v1/jobs/%0A"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
