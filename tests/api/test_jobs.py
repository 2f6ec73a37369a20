"""Submitting, reading and ending jobs."""

import json

import pytest


def _spec(dataset, **fields):
    return {"kind": "reprogram", "dataset": dataset} | fields


def _refused(client, spec):
    before = client.get("/v1/jobs").json()["data"]
    answer = client.post("/v1/jobs", json=spec)
    assert client.get("/v1/jobs").json()["data"] == before
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    return answer.status_code, problem["code"], problem["param"], problem["detail"]


def test_submit_and_read(client, stand_in):
    dataset = stand_in.dataset()
    spec = _spec(dataset, trainer={"kind": "gradient", "epochs": 3}, metadata={"team": "a"})
    answer = client.post("/v1/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["status"], job["kind"], job["dataset"], job["queue"]) == ("queued", "reprogram", dataset, "cpu")
    assert job["spec"]["trainer"]["epochs"] == 3
    assert job["spec"]["label_mapping"]["kind"] == "iterative", "defaults are written down"
    assert job["metadata"] == {"team": "a"}
    detail = client.get(answer.headers["Location"]).json()
    transitions = detail.pop("transitions")
    assert detail == job
    assert [change["status"] for change in transitions] == ["queued"]


def test_dry_run_keeps_nothing(client, stand_in):
    answer = client.post("/v1/jobs?dry_run=true", json=_spec(stand_in.dataset()))
    assert (answer.status_code, answer.json()["valid"], answer.json()["spec"]["seed"]) == (200, True, 0)
    assert client.get("/v1/jobs").json()["data"] == []


def test_idempotency_key(client, stand_in):
    spec, headers = _spec(stand_in.dataset()), {"Idempotency-Key": "once"}
    first, again = (client.post("/v1/jobs", json=spec, headers=headers) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    other = client.post("/v1/jobs", json=spec | {"seed": 1}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert len(client.get("/v1/jobs").json()["data"]) == 1


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"colour": "red"}, "colour", "allowed: "),
        ({"trainer": {"kind": "gradient", "lr": 1}}, "trainer.lr", "learning_rate"),
        ({"input_transform": {"kind": "padding", "size": 1}}, "input_transform.size", "image_size"),
        ({"kind": "distill"}, "kind", "auto, diagnose, evaluate, prime, rank, reprogram"),
        ({"label_mapping": {"kind": "astrological"}}, "label_mapping.kind", "frequent"),
        ({"trainer": {"epochs": 3}}, "trainer.kind", "missing"),
        ({"trainer": {"kind": "gradient", "epochs": 0}}, "trainer.epochs", "found 0"),
        ({"trainer": {"kind": "gradient", "epochs": "many"}}, "trainer.epochs", "found 'many'"),
        ({"device": "tpu"}, "device", "'auto', 'cpu' or 'gpu'"),
        ({"dataset": None}, "dataset", "string"),
        ({"metadata": {"a": "\u0000"}}, "metadata.a", "NUL"),
        ({"seed": 1.5}, "seed", "found 1.5"),
        ({"trainer": {"kind": "gradient", "momentum": 0.5}}, "trainer", "sgd"),
    ],
)
def test_invalid_spec_names_the_field(client, stand_in, change, param, said):
    status, code, found, detail = _refused(client, _spec(stand_in.dataset()) | change)
    assert (status, code, found) == (422, "validation_error", param)
    assert said in detail


def test_several_faults_are_all_told(client):
    answer = client.post("/v1/jobs", json={"kind": "reprogram", "colour": 1, "seed": -1}).json()
    assert {fault["param"] for fault in answer["errors"]} == {"dataset", "colour", "seed"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_body"),
        (b"[" * 100_000, 400, "malformed_body"),
        (b"\xff\xfe", 400, "malformed_body"),
        (b"[]", 422, "validation_error"),
        (b"", 422, "validation_error"),
        (b'{"kind": "reprogram", "dataset": "\\ud800"}', 422, "validation_error"),
        (b'{"kind": "reprogram", "dataset": NaN}', 422, "validation_error"),
        (b" " * (2 << 20), 413, "payload_too_large"),
    ],
)
def test_bad_bodies(client, body, status, code):
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_datasets_that_no_job_can_read(client, stand_in):
    assert _refused(client, _spec("ds_none"))[:3] == (404, "not_found", "dataset")
    validating = stand_in.dataset(status="validating")
    assert _refused(client, _spec(validating))[:3] == (409, "dataset_not_ready", "dataset")
    invalid = stand_in.dataset(status="invalid")
    status, code, param, detail = _refused(client, _spec(invalid))
    assert (status, code, param) == (422, "invalid_dataset", "dataset")
    assert "one class: cat" in detail


def test_what_cannot_work_is_refused_before_the_queue(client, stand_in):
    dataset = stand_in.dataset()
    many = stand_in.dataset([f"class {n}" for n in range(12)])
    small, headless = stand_in.backbone(labels=10), stand_in.backbone(labels=None)
    padding, text = {"kind": "padding", "image_size": 96}, {"kind": "text"}
    for spec, param in (
        (_spec(dataset, input_transform=padding), "input_transform.image_size"),
        (_spec(dataset, backbone=small, input_transform=padding | {"image_size": 32}), "input_transform.image_size"),
        (_spec(many, backbone=small), "label_mapping.kind"),
        (_spec(dataset, backbone=headless), "label_mapping.kind"),
        (_spec(dataset, backbone=f"random:{headless}"), "label_mapping.kind"),
        (_spec(dataset, backbone=small, label_mapping=text), "label_mapping.kind"),
        (_spec(dataset, backbone="timm:resnet18", label_mapping=text), "label_mapping.kind"),
        (_spec(stand_in.dataset(n_train=2)), "evaluation.validation_fraction"),
        (_spec(many, kind="diagnose", samples=11), "samples"),
    ):
        assert _refused(client, spec)[:3] == (422, "impossible_spec", param), spec
    for spec in (
        _spec(many, backbone=small, label_mapping={"kind": "linear"}),
        _spec(dataset, backbone="builtin/mini-clip", label_mapping=text),
        _spec(dataset, backbone="timm:resnet18"),
        _spec(many, kind="diagnose", samples=12),
    ):
        assert client.post("/v1/jobs", json=spec).status_code == 201


def test_unknown_backbones(client, stand_in):
    dataset = stand_in.dataset()
    for name in ("resnet", "builtin/none", "hf:x", "random:"):
        assert _refused(client, _spec(dataset, backbone=name))[:3] == (422, "invalid_backbone", "backbone")
    for name in ("bb_none", "random:bb_none"):
        assert _refused(client, _spec(dataset, backbone=name))[:3] == (404, "not_found", "backbone")
    assert _refused(client, _spec(dataset, kind="diagnose", adapter="ad_none"))[:3] == (404, "not_found", "adapter")


def test_filters(client, stand_in):
    dataset = stand_in.dataset()
    one = stand_in.job(dataset, metadata={"team": "a", "run": "1"})
    two = stand_in.job(dataset, metadata={"team": "a", "run": "2"})
    stand_in.job(stand_in.dataset())
    client.post(f"/v1/jobs/{one}/cancel")

    def listed(**parameters):
        return [job["id"] for job in client.get("/v1/jobs", params=parameters).json()["data"]]

    assert listed(dataset=dataset) == [two, one]
    assert listed(status="cancelled") == [one]
    assert listed(kind="diagnose") == []
    assert listed(**{"metadata[team]": "a", "metadata[run]": "2"}) == [two]


def test_cancel_retry_delete(client, stand_in):
    job = stand_in.job()
    assert client.delete(f"/v1/jobs/{job}").json()["code"] == "job_not_finished"
    assert client.post(f"/v1/jobs/{job}/retry").json()["code"] == "job_not_retryable"
    answer = client.post(f"/v1/jobs/{job}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    again = client.post(f"/v1/jobs/{job}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job_finished")
    retried = client.post(f"/v1/jobs/{job}/retry")
    assert (retried.status_code, retried.json()["retry_of"], retried.json()["status"]) == (201, job, "queued")
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert client.get(f"/v1/jobs/{job}").status_code == 404


def test_cancel_of_a_running_job(client, stand_in):
    job = stand_in.job()
    claim = stand_in.claim(job)
    assert client.post(f"/v1/jobs/{job}/cancel").json()["status"] == "cancelling"
    assert client.post(f"/v1/jobs/{job}/cancel").status_code == 202
    stand_in.finish_cancelled(claim)
    detail = client.get(f"/v1/jobs/{job}").json()
    assert [change["status"] for change in detail["transitions"]] == ["queued", "running", "cancelling", "cancelled"]


def test_quota(client, stand_in, gateway, monkeypatch):
    parts = gateway.app.state.parts
    few = parts.settings.model_copy(update={"max_unfinished_jobs": 1})
    dataset = stand_in.dataset()
    stand_in.job(dataset)
    monkeypatch.setitem(parts.__dict__, "settings", few)
    answer = client.post("/v1/jobs", json=_spec(dataset))
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert answer.headers["Retry-After"]


def test_progress_is_told_in_percent(client, stand_in):
    job = stand_in.job()
    claim = stand_in.claim(job)
    stand_in.progress(claim, {"step": 3, "total": 12, "unit": "epoch", "eta_s": 4.5})
    progress = client.get(f"/v1/jobs/{job}").json()["progress"]
    assert progress == {"step": 3, "total": 12, "unit": "epoch", "percent": 25.0, "eta_s": 4.5}


def test_sub_jobs_are_listed_under_their_job_alone(client, stand_in):
    dataset = stand_in.dataset()
    parent = client.post("/v1/jobs", json={"kind": "rank", "dataset": dataset}).json()["id"]
    stand_in.suspend(parent, {"0-0-0": {"kind": "diagnose", "dataset": dataset, "device": "cpu"}})
    assert [row["id"] for row in client.get("/v1/jobs").json()["data"]] == [parent]
    (part,) = client.get("/v1/jobs", params={"parent": parent}).json()["data"]
    assert (part["parent"], part["kind"], part["status"]) == (parent, "diagnose", "queued")
    assert client.get(f"/v1/jobs/{part['id']}").json()["parent"] == parent
    assert client.get(f"/v1/jobs/{parent}").json()["attempts"][0]["outcome"] == "waiting"
    assert client.get("/v1/jobs", params={"parent": "job_none"}).json()["data"] == []


def test_blocks_of_a_kernel_are_no_kind_to_ask_for_or_to_retry(client, stand_in):
    dataset = stand_in.dataset()
    block = {"kind": "kernel_block", "dataset": dataset, "start": 0, "stop": 16}
    status, code, param, detail = _refused(client, block)
    assert (status, code, param) == (422, "validation_error", "kind")
    assert "expected one of" in detail or "diagnose, evaluate" in detail
    assert client.post("/v1/estimates", json=block).status_code == 422
    assert "kernel_block" not in {method["kind"] for method in client.get("/v1/methods").json()["job_kinds"]}

    parent = client.post("/v1/jobs", json={"kind": "diagnose", "dataset": dataset}).json()["id"]
    stand_in.suspend(parent, {"samples-0-15": block | {"device": "cpu"}})
    waiting = client.get(f"/v1/jobs/{parent}").json()
    assert (waiting["status"], waiting["attempts"][0]["outcome"]) == ("queued", "waiting")
    (part,) = client.get("/v1/jobs", params={"parent": parent}).json()["data"]
    assert client.post(f"/v1/jobs/{part['id']}/cancel").status_code == 202
    answer = client.post(f"/v1/jobs/{part['id']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_retryable")
    assert f"retry {parent}" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"samples": 5001}, "samples", "5000"),
        ({"samples": 3}, "samples", "4"),
        ({"block_samples": 8}, "block_samples", "16"),
        ({"block_samples": 24}, "block_samples", "multiple of 16"),
        ({"block_samples": 8192}, "block_samples", "4096"),
        ({"precision": "float16"}, "precision", "'float32' or 'bfloat16'"),
        ({"kernel": "half"}, "kernel", "'full', 'trace' or 'pseudo'"),
    ],
)
def test_a_diagnosis_that_cannot_be_names_the_field(client, stand_in, change, param, said):
    status, code, found, detail = _refused(client, {"kind": "diagnose", "dataset": stand_in.dataset()} | change)
    assert (status, code, found) == (422, "validation_error", param)
    assert said in detail


def test_spec_round_trips(client, stand_in):
    spec = client.post("/v1/jobs", json=_spec(stand_in.dataset())).json()["spec"]
    assert (
        client.post("/v1/jobs", content=json.dumps(spec), headers={"Content-Type": "application/json"}).status_code
        == 201
    )


def test_an_evaluation_is_refused_where_the_adapter_lacks_a_class(client, stand_in):
    adapter = stand_in.finish(stand_in.claim(stand_in.job()), adapter=b"adapter")  # knows cat and dog
    spec = {"kind": "evaluate", "adapter": adapter}
    some = client.post("/v1/jobs?dry_run=true", json=spec | {"dataset": stand_in.dataset(("cat", "dog"))})
    assert some.status_code == 200
    other = client.post("/v1/jobs", json=spec | {"dataset": stand_in.dataset(("cat", "eel"))})
    assert (other.status_code, other.json()["param"]) == (422, "adapter")
    assert "does not know the classes eel" in other.json()["detail"]
    unknown = client.post("/v1/jobs", json=spec | {"adapter": "ad_none", "dataset": stand_in.dataset()})
    assert unknown.status_code in (404, 422)
