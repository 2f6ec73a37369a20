"""What the gateway says about a search before it runs."""

import pytest


def refused(client, spec):
    answer = client.post("/v1/jobs", json=spec)
    assert answer.status_code == 422, answer.text
    return answer.json()


def test_without_anything_but_a_dataset_it_is_taken(client, stand_in):
    answer = client.post("/v1/jobs", json={"kind": "auto", "dataset": stand_in.dataset()})
    assert answer.status_code == 201
    budget = answer.json()["spec"]["budget"]
    assert (budget["max_seconds"], budget["max_trials"]) == (None, 24)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"budget": {"max_trials": 0}}, "budget.max_trials"),
        ({"budget": {"trials": 3}}, "budget.trials"),
        ({"min_epochs": 30}, None),
        ({"trainers": [{"kind": "gradient", "epochs": 0}]}, "trainers.0.epochs"),
        ({"samples": 4, "evaluation": {"validation_fraction": 0}}, None),
        ({"ranking": "job_none"}, "ranking"),
    ],
)
def test_what_cannot_be_is_refused(client, stand_in, change, param):
    problem = refused(client, {"kind": "auto", "dataset": stand_in.dataset()} | change)
    assert problem.get("param") == param or param is None


def test_a_ranking_of_this_dataset_may_be_named(client, stand_in):
    dataset, other = stand_in.dataset(), stand_in.dataset()
    waiting = client.post("/v1/jobs", json={"kind": "rank", "dataset": dataset}).json()["id"]
    search = {"kind": "auto", "dataset": dataset}
    assert "expected a rank that has succeeded" in refused(client, search | {"ranking": waiting})["detail"]
    stand_in.finish(stand_in.claim(waiting), {"cells": []})
    assert client.post("/v1/jobs", json=search | {"ranking": waiting}).status_code == 201
    problem = refused(client, search | {"dataset": other, "ranking": waiting})
    assert (problem["param"], "not on" in problem["detail"]) == ("ranking", True)
