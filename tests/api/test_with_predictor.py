"""Registering real weights, judged by the real predictor."""

import json
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FORM = {"name": "small", "library": "builtin", "architecture": "cifar_resnet20"}


@pytest.fixture
def predictor_url(gateway, monkeypatch) -> Iterator[str]:
    from worker.predictor import create_app

    parts = gateway.app.state.parts
    settings = gateway.settings.model_copy(update={"predictor_token": SecretStr("shared")})
    with gateway.serving(create_app(settings, gateway.database, device="cpu")) as url:
        monkeypatch.setitem(parts.__dict__, "settings", settings.model_copy(update={"predictor_urls": [url]}))
        yield url


@pytest.fixture
def tensors():
    """Random weights of the architecture, by name."""
    from mr_core.backbones.description import BackboneDescription
    from mr_core.backbones.loading import load_backbone

    description = BackboneDescription(id="x", random_seed=0, library="builtin", architecture="cifar_resnet20")
    from mr_core.backbones.builtin_models import ARCHITECTURES

    module = ARCHITECTURES["cifar_resnet20"].weights_module(load_backbone(description).source)
    return {name: tensor.contiguous() for name, tensor in module.state_dict().items()}


def _register(client, tensors, **form):
    from safetensors.torch import save

    return client.post("/v1/backbones", files={"file": ("w.safetensors", save(tensors))}, data=FORM | form)


def test_weights_that_fit(client, predictor_url, tensors):
    answer = _register(client, tensors)
    assert answer.status_code == 201, answer.text
    backbone = answer.json()
    assert backbone["outputs"]["text"] is False
    assert backbone["outputs"]["labels"] == 10
    assert backbone["preprocessing"]["size"] == 32
    assert 250_000 < backbone["parameters"] < 300_000


def test_weights_that_do_not_fit(gateway, client, predictor_url, tensors):
    before = gateway.kept()
    first = next(iter(tensors))
    tensors["surprise"] = tensors.pop(first)
    answer = _register(client, tensors)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_backbone"), answer.text
    assert first in problem["detail"]
    assert "surprise" in problem["detail"]
    assert gateway.kept() == before


@pytest.mark.parametrize(
    "form",
    [{"architecture": "cifar_resnet21"}, {"classes": json.dumps(["only", "two"])}, {"arguments": '{"depth": 3}'}],
)
def test_descriptions_that_do_not_fit(gateway, client, predictor_url, tensors, form):
    before = gateway.kept()
    answer = _register(client, tensors, **form)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_backbone"), answer.text
    assert gateway.kept() == before


def test_another_token_is_not_blamed_on_the_client(gateway, client, predictor_url, tensors, monkeypatch):
    parts = gateway.app.state.parts
    other = parts.settings.model_copy(update={"predictor_token": SecretStr("other")})
    monkeypatch.setitem(parts.__dict__, "settings", other)
    answer = _register(client, tensors)
    assert (answer.status_code, answer.json()["code"]) == (503, "predictor_unavailable")
