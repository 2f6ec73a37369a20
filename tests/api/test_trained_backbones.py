"""Source models that jobs have trained, as clients see them; and specs of `train_source` that cannot be."""

import json

import pytest

from mr_core.backbones.description import BackboneDescription, BackboneOutputs, Preprocessing
from mr_core.job_spec import JobSpec
from service import backbones, jobs


def trained(stand_in, *, labels=10, size=32):
    """A train_source job that has succeeded; its id."""
    with stand_in.gateway.database.session() as session:
        dataset = stand_in.dataset()
        spec = JobSpec.parse({"kind": "train_source", "dataset": dataset}).model_dump(mode="json")
        job = jobs.create_job(
            session, tenant=stand_in.tenant, kind="train_source", spec=spec, queue="cpu", dataset_id=dataset
        ).id
    stand_in.finish(stand_in.claim(job), {"backbone": f"trained:{job}"})
    with stand_in.gateway.database.session() as session:
        backbones.create(
            session,
            tenant=stand_in.tenant,
            name="trained",
            description=BackboneDescription(
                id="trained",
                library="builtin",
                architecture="cnn",
                preprocessing=Preprocessing(size=size, mean=(0.5,) * 3, std=(0.5,) * 3),
            ),
            sha256=stand_in.gateway.blobs.put_bytes(session, f"weights of {job}".encode()),
            size_bytes=len(f"weights of {job}"),
            parameters=10,
            outputs=BackboneOutputs(labels=labels, embedding=8, text=False),
            job_id=job,
        )
    return job


def spec_of(stand_in, **fields):
    return {"kind": "train_source", "dataset": stand_in.dataset(), **fields}


def test_listed_read_downloaded_and_named(client, stand_in):
    job = trained(stand_in)
    name = f"trained:{job}"
    listed = client.get("/v1/backbones").json()
    assert [(row["id"], row["job"]) for row in listed["data"]] == [(name, job)]
    assert "trained:<job>" in listed["unregistered"]
    assert client.get(f"/v1/backbones/{name}").json()["job"] == job
    assert client.get(f"/v1/backbones/{name}/content").content == f"weights of {job}".encode()
    dataset = stand_in.dataset()
    for spec in (
        {"kind": "reprogram", "backbone": name},
        {"kind": "diagnose", "backbone": f"random:{name}", "input_transform": {"kind": "padding", "image_size": 20}},
        {"kind": "train_source", "backbone": name},
        {"kind": "rank", "backbones": [name]},
    ):
        spec |= {"dataset": dataset}
        if spec["kind"] == "reprogram":
            spec["input_transform"] = {"kind": "padding", "image_size": 20}
        assert client.post("/v1/jobs?dry_run=true", json=spec).status_code == 200
        assert client.post("/v1/estimates", json=spec).status_code == 200
    few = client.post("/v1/jobs", json={"kind": "reprogram", "dataset": dataset, "backbone": name,
                                        "input_transform": {"kind": "padding", "image_size": 32}})  # fmt: skip
    assert (few.status_code, few.json()["param"]) == (422, "input_transform.image_size")


@pytest.mark.parametrize(
    "named",
    [
        {"backbone": "NAME"},
        {"kind": "rank", "backbones": ["builtin/mini-clip", "NAME"]},
        {"kind": "train_source", "backbone": "random:NAME"},
    ],
)
def test_a_job_that_is_needed_is_not_deleted(client, stand_in, named):
    job = trained(stand_in)
    name = f"trained:{job}"
    filled = json.loads(json.dumps(named).replace("NAME", name))
    spec = {"kind": "diagnose", "dataset": stand_in.dataset(), **filled}
    if spec["kind"] == "diagnose":
        spec["input_transform"] = {"kind": "padding", "image_size": 20}
    user = client.post("/v1/jobs", json=spec).json()["id"]
    for path in (f"/v1/jobs/{job}", f"/v1/backbones/{name}"):
        problem = client.delete(path)
        assert (problem.status_code, problem.json()["code"]) == (409, "backbone_in_use")
        assert user in problem.json()["detail"]
    assert client.get(f"/v1/backbones/{name}").status_code == 200
    client.post(f"/v1/jobs/{user}/cancel")
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert client.get("/v1/backbones").json()["data"] == []


def test_a_deleted_job_is_named(client, stand_in):
    job = trained(stand_in)
    name = f"trained:{job}"
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    dataset = stand_in.dataset()
    specs = [
        {"kind": kind, "backbone": prefix + name} for kind in ("diagnose", "train_source") for prefix in ("", "random:")
    ]
    for spec in specs:
        for path in ("/v1/jobs", "/v1/estimates"):
            answer = client.post(path, json=spec | {"dataset": dataset})
            problem = answer.json()
            assert (answer.status_code, problem["code"], problem["param"]) == (
                404,
                "trained_backbone_missing",
                "backbone",
            )
            assert f"the job {job} that trained it was deleted" in problem["detail"]
    assert client.get(f"/v1/backbones/{name}").json()["code"] == "trained_backbone_missing"
    assert client.get(f"/v1/backbones/{name}/content").status_code == 404


def test_a_backbone_can_go_before_its_job(client, stand_in):
    job = trained(stand_in)
    assert client.delete(f"/v1/backbones/trained:{job}").status_code == 204
    assert "was deleted after its job" in client.get(f"/v1/backbones/trained:{job}").json()["detail"]
    assert client.delete(f"/v1/jobs/{job}").status_code == 204


def test_jobs_that_leave_no_backbone_say_so(client, stand_in):
    other = stand_in.job()
    assert "is a reprogram job" in client.get(f"/v1/backbones/trained:{other}").json()["detail"]
    queued = client.post("/v1/jobs", json=spec_of(stand_in)).json()["id"]
    assert "its job is queued" in client.get(f"/v1/backbones/trained:{queued}").json()["detail"]


def test_another_tenants_is_not_there(gateway, stand_in):
    job = trained(stand_in)
    with gateway.client("somebody-else") as stranger:
        for path in (f"/v1/backbones/trained:{job}", f"/v1/backbones/trained:{job}/content"):
            assert stranger.get(path).status_code == 404
        assert stranger.delete(f"/v1/backbones/trained:{job}").status_code == 404


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"architecture": {"kind": "mlp", "depth": 0}}, "validation_error", "architecture.depth"),
        ({"architecture": {"kind": "mlp", "depth": 10}}, "validation_error", "architecture.depth"),
        ({"architecture": {"kind": "cnn", "width": 0}}, "validation_error", "architecture.width"),
        (
            {"architecture": {"kind": "mlp", "width": 16384}, "canvas_size": 512},
            "impossible_spec",
            "architecture.width",
        ),
        ({"architecture": {"kind": "vgg", "depth": 6, "group_size": 1}}, "impossible_spec", "architecture.depth"),
        ({"tangent_kernel": {"samples": 4}}, "impossible_spec", "tangent_kernel.samples"),
        ({"backbone": "bb_absent"}, "not_found", "backbone"),
        ({"backbone": "nothing"}, "invalid_backbone", "backbone"),
    ],
)
def test_what_cannot_be_is_refused_at_the_post(client, gateway, stand_in, fields, code, param):
    dataset = stand_in.dataset(tuple("abcdef"))
    before = len(client.get("/v1/jobs").json()["data"])
    answer = client.post("/v1/jobs", json={"kind": "train_source", "dataset": dataset, **fields})
    problem = answer.json()
    assert (problem["code"], problem["param"]) == (code, param), answer.text
    assert len(client.get("/v1/jobs").json()["data"]) == before


def test_estimates_count_its_images(client, stand_in):
    spec = spec_of(stand_in, trainer={"epochs": 2}, evaluation={"validation_fraction": 0.25})
    found = client.post("/v1/estimates", json=spec).json()
    # 40 training images, 8 of test: two epochs of 30 forward and backward and 10 to select, then both judged
    assert found["based_on"]["images"] == 2 * (2 * 30 + 10) + 10 + 8
    assert found["memory_bytes"] > 600 << 20


def test_quota_of_backbones_counts(gateway, client, stand_in, monkeypatch):
    parts = gateway.app.state.parts
    monkeypatch.setitem(parts.__dict__, "settings", parts.settings.model_copy(update={"max_backbones": 1}))
    spec = spec_of(stand_in)
    assert client.post("/v1/jobs", json=spec).status_code == 201
    trained(stand_in)
    answer = client.post("/v1/jobs", json=spec | {"seed": 1})
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
