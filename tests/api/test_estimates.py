"""Estimates over HTTP: checked as a job is, no side effects."""

import pytest


def _spec(dataset, **fields):
    return {"kind": "reprogram", "dataset": dataset} | fields


def _run(client, stand_in, dataset):
    job = client.post("/v1/jobs", json=_spec(dataset)).json()["id"]
    stand_in.finish(stand_in.claim(job), {"timing": {"seconds": 0.001}, "training": {"epochs": 20}})


def test_an_estimate_without_and_with_runs(gateway, tenant, client, stand_in):
    dataset = stand_in.dataset()
    first = client.post("/v1/estimates", json=_spec(dataset))
    assert first.status_code == 200, first.text
    told = first.json()
    assert told.keys() == {
        "seconds",
        "seconds_interval",
        "memory_bytes",
        "confidence",
        "based_on",
        "queue",
        "queue_wait_s",
    }
    assert (told["confidence"], told["queue"], told["based_on"]["runs"]) == ("low", "cpu", 0)
    low, high = told["seconds_interval"]
    assert 0 < low < told["seconds"] < high
    for _ in range(2):
        _run(client, stand_in, dataset)
    again = client.post("/v1/estimates", json=_spec(dataset)).json()
    assert (again["confidence"], again["based_on"]["source"], again["based_on"]["runs"]) == (
        "high",
        "same_backbone",
        2,
    )
    assert again["seconds"] < told["seconds"]
    with gateway.client(f"{tenant}-other") as stranger:
        other = type(stand_in)(gateway, f"{tenant}-other").dataset()
        answer = stranger.post("/v1/estimates", json=_spec(other)).json()
        assert answer["based_on"]["runs"] == 0, "another tenant's runs are its own"


def test_nothing_is_kept_and_a_read_key_may_ask(gateway, tenant, client, stand_in):
    dataset = stand_in.dataset()
    with gateway.client(tenant, scopes=("read",)) as reader:
        assert reader.post("/v1/estimates", json=_spec(dataset)).status_code == 200
    assert client.get("/v1/jobs").json()["data"] == []


def test_backbones_of_every_kind(client, stand_in):
    dataset, registered = stand_in.dataset(), stand_in.backbone()
    for backbone in (registered, f"random:{registered}", "timm:resnet18", "random:builtin/mini-clip"):
        answer = client.post("/v1/estimates", json=_spec(dataset, backbone=backbone))
        assert answer.status_code == 200, answer.text
    diagnosis = _spec(dataset, kind="diagnose", samples=10)
    assert client.post("/v1/estimates", json=diagnosis).json()["based_on"]["images"] > 0


def test_runs_of_a_backbone_that_was_deleted(client, stand_in):
    dataset, registered = stand_in.dataset(), stand_in.backbone()
    job = client.post("/v1/jobs", json=_spec(dataset, backbone=registered)).json()["id"]
    stand_in.finish(stand_in.claim(job), {"timing": {"seconds": 1.0}})
    client.delete(f"/v1/backbones/{registered}")
    answer = client.post("/v1/estimates", json=_spec(dataset)).json()
    assert (answer["based_on"]["source"], answer["confidence"]) == ("same_device", "low")


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"colour": "red"}, 422, "validation_error", "colour"),
        ({"kind": "conjure"}, 422, "validation_error", "kind"),
        ({"dataset": "ds_none"}, 404, "not_found", "dataset"),
        ({"backbone": "bb_none"}, 404, "not_found", "backbone"),
        ({"backbone": "resnet"}, 422, "invalid_backbone", "backbone"),
        ({"input_transform": {"kind": "padding", "image_size": 96}}, 422, "impossible_spec", None),
        ({"metadata": {"a": "\u0000"}}, 422, "validation_error", "metadata.a"),
    ],
)
def test_what_a_post_would_refuse(client, stand_in, change, status, code, param):
    spec = _spec(stand_in.dataset()) | change
    answers = [client.post(path, json=spec) for path in ("/v1/estimates", "/v1/jobs?dry_run=true")]
    for answer in answers:
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (status, code), answer.text
        assert param is None or problem["param"] == param
    assert answers[0].json()["detail"] == answers[1].json()["detail"]


def test_a_ranking_takes_as_long_as_its_parts(client, stand_in):
    grid = {"kind": "rank", "dataset": stand_in.dataset(), "label_mappings": [{"kind": "linear"}], "samples": 40}
    several = grid | {"input_transforms": [{"kind": "padding"}, {"kind": "identity"}]}
    one, two = (client.post("/v1/estimates", json=spec).json() for spec in (grid, several))
    short_training = 40 * (2 * 35 + 1)  # of halves of 20: 35 epochs of two steps, and once to be judged
    assert one["based_on"]["images"] == 40 + 40 * (2 + 2 * 2) + short_training
    assert two["based_on"]["images"] == 2 * one["based_on"]["images"]
    assert two["seconds"] > one["seconds"] > one["based_on"]["start_s"] > 0
    assert one["confidence"] == "low"


def test_a_search_takes_no_longer_than_twice_its_budget(client, stand_in):
    search = {"kind": "auto", "dataset": stand_in.dataset()}
    whole, short = (
        client.post("/v1/estimates", json=search | {"budget": budget}).json() for budget in ({}, {"max_seconds": 5})
    )
    assert whole["seconds"] - short["seconds"] == pytest.approx(
        whole["based_on"]["images"] / whole["based_on"]["images_per_second"] - 10, abs=0.3
    )
    assert whole["based_on"]["images"] > 0
