"""Registering source models: the header is read here, the fit is the predictor's to judge."""

import hashlib
import json

import pytest

ONE = {"fc": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
FORM = {"name": "small", "library": "builtin", "architecture": "cifar_resnet20"}


def _register(client, content, **form):
    return client.post("/v1/backbones", files={"file": ("w.safetensors", content)}, data=FORM | form)


def test_register_read_download_delete(gateway, client, predictor, weights):
    content = weights(ONE, bytes(16))
    answer = _register(client, content, classes=json.dumps(["a", "b"]), arguments='{"width": 1}')
    assert answer.status_code == 201, answer.text
    backbone = answer.json()
    assert backbone["id"].startswith("bb_")
    assert backbone["sha256"] == hashlib.sha256(content).hexdigest()
    assert (backbone["parameters"], backbone["outputs"]["embedding"]) == (4, 64)
    assert backbone["preprocessing"]["size"] == 32, "what the library states is written down"
    assert predictor[0]["description"]["arguments"] == {"width": 1}
    assert client.get(f"/v1/backbones/{backbone['id']}").json() == backbone
    served = client.get(f"/v1/backbones/{backbone['id']}/content", headers={"Range": "bytes=8-11"})
    assert (served.status_code, served.content) == (206, content[8:12])
    assert client.delete(f"/v1/backbones/{backbone['id']}").status_code == 204
    assert client.get(f"/v1/backbones/{backbone['id']}").status_code == 404


def test_list_says_what_ships_and_what_needs_no_registration(client, stand_in):
    mine = stand_in.backbone()
    told = client.get("/v1/backbones").json()
    assert [backbone["id"] for backbone in told["data"]] == [mine]
    assert [backbone["id"] for backbone in told["builtin"]] == ["builtin/mini-clip"]
    assert told["builtin"][0]["outputs"] == {"labels": 1000, "embedding": 1280, "text": True}
    assert any(form.startswith("timm:") for form in told["unregistered"])
    assert client.get("/v1/backbones/builtin/mini-clip").json()["preprocessing"]["size"] == 96


def test_weights_that_do_not_fit_leave_nothing(gateway, client, predictor, weights):
    before = gateway.kept()
    other = {"other": ONE["fc"]}
    answer = _register(client, weights(other, bytes(16)))
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["param"]) == (422, "invalid_backbone", "file")
    assert "missing: fc" in problem["detail"]
    assert gateway.kept() == before


def test_a_refused_copy_of_registered_weights_keeps_the_registered(gateway, client, predictor, stand_in, weights):
    content = weights({"other": ONE["fc"]}, bytes(16))
    backbone = stand_in.backbone(weights=content)
    assert _register(client, content).status_code == 422
    assert client.get(f"/v1/backbones/{backbone}/content").content == content


@pytest.mark.parametrize(
    ("header", "content", "said"),
    [
        (b"", b"", "not JSON"),
        (b"[1]", b"", "not a JSON object"),
        (b"[" * 100_000, b"", "not JSON"),
        ({}, b"", "no tensor"),
        ({"__metadata__": {"format": "pt"}}, b"", "no tensor"),
        (b'{"a": 1, "a": 2}', b"", "repeats"),
        ({"fc": {"dtype": "F32", "shape": [2, 2]}}, bytes(16), "data_offsets"),
        ({"fc": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}, bytes(8), "dtype 'O'"),
        ({"fc": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}, bytes(16), "shape"),
        ({"fc": {"dtype": "F32", "shape": [2**39] * 8, "data_offsets": [0, 16]}}, bytes(16), "spans"),
        (ONE, bytes(15), "15 follow"),
        (ONE, bytes(17), "17 follow"),
        (ONE | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]}}, bytes(16), "overlap"),
        (ONE | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [20, 24]}}, bytes(24), "gaps"),
    ],
)
def test_bad_header(gateway, client, weights, header, content, said):
    before = gateway.kept()
    answer = _register(client, weights(header, content))
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["param"]) == (422, "invalid_backbone", "file"), answer.text
    assert said in problem["detail"]
    assert gateway.kept() == before


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04\x95pickle.......", b"\xff" * 64])
def test_not_safetensors(gateway, client, content):
    before = gateway.kept()
    answer = _register(client, content)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_backbone")
    assert gateway.kept() == before


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"library": "keras"}, "library"),
        ({"arguments": "{"}, "arguments"),
        ({"arguments": "[]"}, "arguments"),
        ({"preprocessing": '{"size": 32}'}, "preprocessing.mean"),
        ({"colour": "red"}, "colour"),
        ({"architecture": ""}, "architecture"),
    ],
)
def test_bad_field_is_named(gateway, client, weights, form, param):
    before = gateway.kept()
    answer = _register(client, weights(ONE, bytes(16)), **form)
    assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (422, "validation_error", param)
    assert gateway.kept() == before


def test_without_a_predictor_nothing_is_kept(gateway, client, weights):
    before = gateway.kept()
    answer = _register(client, weights(ONE, b"never uploaded.."))
    assert (answer.status_code, answer.json()["code"]) == (503, "predictor_unavailable")
    assert answer.headers["Retry-After"]
    assert gateway.kept() == before


def test_delete_while_a_job_needs_it(client, stand_in):
    backbone = stand_in.backbone()
    spec = {"kind": "reprogram", "dataset": stand_in.dataset(), "backbone": backbone}
    assert client.post("/v1/jobs", json=spec).status_code == 201
    assert client.delete(f"/v1/backbones/{backbone}").json()["code"] == "backbone_in_use"
