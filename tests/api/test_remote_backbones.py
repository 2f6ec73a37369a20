"""Models that only answer over HTTP: registering them, and what is refused at the POST."""

import json

import pytest

from service import backbones
from service.errors import NotFound

URL = "https://8.8.8.8/v1/classify"
REMOTE = {"url": URL, "protocol": "json", "answer": "probabilities", "secret": "classifier", "batch_size": 10}
PLAIN = {"size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}
JOB = {
    "kind": "reprogram",
    "backbone": "remote:api",
    "input_transform": {"kind": "padding", "image_size": 24},
    "label_mapping": {"kind": "frequent"},
    "trainer": {"kind": "spsa"},
    "budget": {"max_images": 10_000},
}


def register(client, name="api", remote=REMOTE, **form):
    fields = {"name": name, "library": "remote", "remote": remote, "classes": ["cat", "dog", "owl"]}
    fields |= {"preprocessing": PLAIN, **form}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
    return client.post("/v1/backbones", files={key: (None, value) for key, value in texts.items()})


def test_register_read_list_delete(gateway, client):
    answer = register(client)
    assert answer.status_code == 201, answer.text
    backbone = answer.json()
    assert answer.headers["Location"] == "/v1/backbones/remote:api"
    assert backbone["outputs"] == {"labels": 3, "embedding": None, "text": False}
    assert (backbone["library"], backbone["architecture"]) == ("remote", "json")
    assert client.get("/v1/backbones/remote:api").json() == backbone
    assert [one["id"] for one in client.get("/v1/backbones").json()["data"]] == ["remote:api"]
    assert client.get("/v1/backbones/remote:api/content").status_code == 404
    assert client.delete("/v1/backbones/remote:api").status_code == 204
    assert client.get("/v1/backbones/remote:api").status_code == 404


def test_a_name_is_the_tenants_own(gateway, client):
    register(client)
    again = register(client)
    assert (again.status_code, again.json()["code"], again.json()["param"]) == (409, "conflict", "name")
    with gateway.client("another") as other:
        assert other.get("/v1/backbones/remote:api").status_code == 404
        assert register(other).status_code == 201
        assert other.delete("/v1/backbones/remote:api").status_code == 204
    assert client.get("/v1/backbones/remote:api").status_code == 200, "another tenant's of that name is another"


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"remote": REMOTE | {"url": "http://8.8.8.8/"}}, "url_not_allowed", "remote.url"),
        ({"remote": REMOTE | {"url": "https://127.0.0.1/"}}, "url_not_allowed", "remote.url"),
        ({"remote": REMOTE | {"url": "https://169.254.169.254/latest"}}, "url_not_allowed", "remote.url"),
        ({"remote": REMOTE | {"url": "https://user:pass@8.8.8.8/"}}, "url_not_allowed", "remote.url"),
        ({"remote": REMOTE | {"headers": {}}}, "validation_error", "remote.headers"),
        ({"remote": REMOTE | {"request": {}}}, "validation_error", "remote"),
        ({"remote": REMOTE | {"timeout_s": 1e9}}, "validation_error", "remote.timeout_s"),
        (
            {"remote": REMOTE | {"pixels": "uint8"}, "preprocessing": PLAIN | {"std": [2, 2, 2]}},
            "validation_error",
            "remote",
        ),
        ({"classes": ["cat", "cat"]}, "validation_error", "remote"),
        ({"name": "a/b"}, "validation_error", "name"),
        ({"architecture": "resnet"}, "validation_error", "architecture"),
    ],
)
def test_refusals_leave_nothing(gateway, client, changes, code, param):
    before = gateway.kept()
    problem = register(client, **changes).json()
    assert (problem["code"], problem.get("param")) == (code, param), problem
    assert gateway.kept() == before


@pytest.mark.parametrize("missing", ["remote", "classes", "preprocessing"])
def test_what_is_needed(client, missing):
    fields = {"name": "a", "library": "remote", "remote": json.dumps(REMOTE), "classes": '["a", "b"]'}
    fields |= {"preprocessing": json.dumps(PLAIN)}
    del fields[missing]
    answer = client.post("/v1/backbones", files={key: (None, value) for key, value in fields.items()})
    assert (answer.status_code, answer.json()["param"]) == (422, missing)


def test_a_file_and_a_url_do_not_go_together(client, weights):
    form = {"name": "a", "library": "remote", "remote": json.dumps(REMOTE)}
    answer = client.post("/v1/backbones", files={"file": ("w", b"x")}, data=form)
    assert (answer.status_code, answer.json()["param"]) == (422, "file")
    form = {"name": "a", "library": "builtin", "architecture": "cifar_resnet20", "remote": json.dumps(REMOTE)}
    answer = client.post("/v1/backbones", files={"file": ("w", b"x")}, data=form)
    assert (answer.status_code, answer.json()["param"]) == (422, "remote")


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"budget": {}}, "impossible_spec", "budget.max_images"),
        ({"budget": {"max_images": 100}}, "call_budget_spent", "budget.max_images"),
        ({"budget": {"max_calls": 3}}, "call_budget_spent", "budget.max_calls"),
        ({"trainer": {"kind": "gradient"}}, "impossible_spec", "trainer.kind"),
        ({"label_mapping": {"kind": "linear"}}, "impossible_spec", "label_mapping.kind"),
        ({"backbone": "random:remote:api"}, "impossible_spec", "backbone"),
        ({"backbone": "remote:other"}, "not_found", "backbone"),
        ({"backbone": "builtin/mini-clip"}, "impossible_spec", "budget.max_images"),
        ({"repeats": 3}, "impossible_spec", "repeats"),
    ],
)
def test_jobs_that_cannot_be_done_are_refused_at_once(client, stand_in, changes, code, param):
    register(client)
    problem = client.post("/v1/jobs", json=JOB | {"dataset": stand_in.dataset(n_train=40), **changes}).json()
    assert (problem["code"], problem["param"]) == (code, param), problem


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "diagnose", "backbone": "remote:api"},
        {"kind": "rank", "backbones": ["builtin/mini-clip", "remote:api"]},
        {"kind": "train_source", "backbone": "remote:api"},
    ],
    ids=lambda spec: spec["kind"],
)
def test_kinds_that_need_more_than_answers(client, stand_in, spec):
    register(client)
    answer = client.post("/v1/jobs", json=spec | {"dataset": stand_in.dataset()})
    assert (answer.status_code, answer.json()["code"]) == (422, "impossible_spec"), answer.text
    assert "only answers" in answer.json()["detail"]


def test_a_job_holds_its_backbone_and_never_the_secret(client, stand_in):
    register(client)
    answer = client.post("/v1/jobs", json=JOB | {"dataset": stand_in.dataset()})
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert "classifier" not in answer.text, "a spec names the backbone alone"
    assert client.delete("/v1/backbones/remote:api").json()["code"] == "backbone_in_use"
    assert client.post("/v1/estimates", json=JOB | {"dataset": job["spec"]["dataset"]}).status_code == 200
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert client.delete("/v1/backbones/remote:api").status_code == 204


def test_registered_rows_of_two_tenants(gateway, client, tenant):
    register(client)
    with gateway.database.session() as session:
        assert backbones.get(session, tenant, "remote:api").tenant == tenant
        with pytest.raises(NotFound):
            backbones.get(session, "nobody", "remote:api")


def test_a_priming_is_checked_against_its_encoder(client, stand_in):
    register(client)
    prime = {"kind": "prime", "dataset": stand_in.dataset(), "backbone": "remote:api"}
    answer = client.post("/v1/jobs", json=prime)
    assert answer.status_code == 201, answer.text
    for changes, param in (
        ({"backbone": "builtin/mini-clip"}, "backbone"),
        ({"encoder": "remote:api"}, "encoder"),
        ({"input_transform": {"kind": "padding", "image_size": 96}}, "input_transform.image_size"),
        ({"label_mapping": {"kind": "text"}}, "label_mapping.kind"),
        ({"label_mapping": {"kind": "frequent", "sources_per_class": 2}}, "label_mapping.sources_per_class"),
    ):
        problem = client.post("/v1/jobs", json=prime | changes).json()
        assert (problem["code"], problem["param"]) == ("impossible_spec", param), problem


def test_an_adapter_from_elsewhere_finds_the_registered_model_or_is_refused(gateway, client, tenant):
    from api.adapter_import import require_backbone
    from mr_core.errors import BackboneError

    register(client)
    with gateway.database.session() as session:
        described = backbones.describe(backbones.get(session, tenant, "remote:api"))
        require_backbone(session, tenant, described)
        elsewhere = described.model_copy(update={"arguments": described.arguments | {"url": "https://8.8.4.4/"}})
        for other, whose in ((elsewhere, tenant), (described, "nobody")):
            with pytest.raises(BackboneError, match="register it first"):
                require_backbone(session, whose, other)
