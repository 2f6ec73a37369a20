"""A black box asked once, and a local model in its place."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from mr_core import JobSpec, load_adapter, run
from mr_core.adapter_file import zip_adapter
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.remote.transport import RemoteAccess
from mr_core.errors import AdapterError, CallBudgetSpent, RemoteAnswerInvalid, SpecError
from mr_core.jobs.prime.priming import fit_head
from mr_core.jobs.prime.spec import Priming
from tests.remote_model import SIDE, serving_model

SPEC = {
    "kind": "prime",
    "dataset": "ds_1",
    "backbone": "remote:api",
    "priming": {"epochs": 20},
    "input_transform": {"kind": "padding", "image_size": 48},
    "label_mapping": {"kind": "linear"},
    "trainer": {"kind": "gradient", "epochs": 2, "batch_size": 16},
}


@pytest.fixture(scope="module")
def server():
    with serving_model() as model:
        yield model


@pytest.fixture
def model(server):
    return server.forget()


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("mr_core.jobs.reprogram.run.reprogram_artifacts", lambda **_: [])


def packed(path, images, labels, *, n_train):
    """An archive of `n_train` training images a class, and the rest of each for test."""
    seen = dict.fromkeys(set(labels), 0)
    with zipfile.ZipFile(path, "w") as target:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            seen[label] += 1
            split = "train" if seen[label] <= n_train else "test"
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            target.writestr(f"{split}/{label}/{i}.png", content.getvalue())
    return path


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """Three classes of coloured noise, of which the API knows nothing but the names: 10 training and 3 test images."""
    generator = np.random.default_rng(0)
    labels = [f"Class_{i % 3}" for i in range(39)]
    images = generator.integers(0, 120, (39, 24, 24, 3), dtype=np.uint8)
    for i in range(39):
        images[i, ..., i % 3] += 110
    return packed(tmp_path_factory.mktemp("coloured") / "c.zip", images, labels, n_train=10)


@pytest.fixture(scope="module")
def of_the_api(server, tmp_path_factory):
    """Noise, labelled by the API itself: nobody else can tell it apart."""
    images = np.random.default_rng(1).integers(0, 256, (160, SIDE, SIDE, 3), dtype=np.uint8)
    answers = server.probabilities(images.transpose(0, 3, 1, 2).astype(np.float32) / 255).argmax(1)
    common = np.argsort(-np.bincount(answers, minlength=10))[:2]
    chosen = np.concatenate([np.flatnonzero(answers == label)[:15] for label in common])
    labels = [f"class {answers[i]}" for i in chosen]
    assert len(chosen) == 30
    return packed(tmp_path_factory.mktemp("api") / "a.zip", images[chosen], labels, n_train=12)


@pytest.fixture
def prime(model):
    def prime(archive, description=None, **changes):
        described = description or model.description(batch_size=10, attempts=1)
        remote = load_backbone(described, access=RemoteAccess(sleep=lambda _: None))
        return run(JobSpec.parse(SPEC | changes), archive, backbones={"remote:api": remote})

    return prime


def test_asks_for_each_training_image_once_and_answers_alone(prime, model, coloured, tmp_path):
    outcome = prime(coloured, budget={"max_images": 30})
    result = json.loads(json.dumps(outcome.result, allow_nan=False))
    assert (model.served, model.images) == (3, 30)
    assert result["remote"]["images"] == 30
    assert result["gate"]["returned"] == "primed"
    assert result["gate"]["zero_shot_by"] == "names"
    assert (
        result["gate"]["primed"]
        >= result["gate"]["zero_shot"]
        == result["baselines"]["zero_shot"]["validation"]["accuracy"]
    )
    assert result["metrics"]["validation"]["accuracy"] == result["gate"]["primed"]
    assert result["baselines"]["zero_shot"]["test"] is None
    assert "which needs no calls" in result["verdict"]["reason"]
    path = tmp_path / "adapter.zip"
    path.write_bytes(zip_adapter(outcome.adapter))
    classifier = load_adapter(path)
    assert classifier.model.backbone.description.id == "builtin/mini-clip"
    with zipfile.ZipFile(coloured) as opened:
        names = sorted(name for name in opened.namelist() if name.startswith("test/"))
        answers = classifier.predict([opened.read(name) for name in names])
    right = [answer.label == name.split("/")[1] for answer, name in zip(answers, names, strict=True)]
    assert np.mean(right) == result["metrics"]["test"]["accuracy"]
    assert model.images == 30, "the adapter answers by itself"


def test_the_head_is_part_of_the_adapter(prime, coloured, tmp_path):
    outcome = prime(coloured, label_mapping={"kind": "bayesian"})
    config = json.loads(outcome.adapter.config)
    assert config["required_features"] == ["source_head"]
    assert config["primed"]["backbone"] == "remote:api"
    path = tmp_path / "adapter.zip"
    path.write_bytes(zip_adapter(outcome.adapter))
    mapping = load_adapter(path).model.label_mapping
    assert mapping.matrix().shape == (10, 3)
    broken = outcome.adapter.weights.replace(b"source_head.bias", b"source_head.bi_s")
    path.write_bytes(zip_adapter(type(outcome.adapter)(config=outcome.adapter.config, weights=broken)))
    with pytest.raises(AdapterError, match="source head"):
        load_adapter(path)


def test_the_same_seed_gives_the_same_bytes(prime, coloured):
    assert prime(coloured).adapter == prime(coloured).adapter


def test_what_the_api_does_better_stays_the_apis(prime, model, of_the_api, tmp_path):
    outcome = prime(of_the_api)
    result = outcome.result
    assert result["gate"]["returned"] == "zero_shot"
    assert result["gate"]["zero_shot"] == 1.0 > result["gate"]["primed"]
    assert result["metrics"]["validation"]["accuracy"] == result["metrics"]["test"]["accuracy"] == 1.0
    assert (result["remote"]["images"], model.images) == (30, 30)
    assert result["backbone_unchanged"] is None
    assert "the adapter is the API's zero-shot" in result["verdict"]["reason"]
    path = tmp_path / "adapter.zip"
    path.write_bytes(zip_adapter(outcome.adapter))
    access = RemoteAccess(sleep=lambda _: None)
    classifier = load_adapter(path, load_backbone(model.description(), access=access))
    with zipfile.ZipFile(of_the_api) as opened:
        for name in [name for name in opened.namelist() if name.startswith("test/")]:
            assert classifier.predict([opened.read(name)])[0].label == name.split("/")[1]


def test_a_tolerance_prefers_what_needs_no_calls(prime, of_the_api):
    gate = prime(of_the_api, tolerance=1.0).result["gate"]
    assert gate["returned"] == "primed"
    assert gate["primed"] < gate["zero_shot"]


def test_test_images_are_not_asked_for_beyond_the_budget(prime, model, of_the_api):
    result = prime(of_the_api, budget={"max_images": 24}).result
    assert model.images == 24
    assert result["gate"]["returned"] == "zero_shot"
    assert result["metrics"]["test"] is None


def test_test_images_that_go_unanswered_lose_nothing_else(prime, model, of_the_api):
    model.faults += [None] * 3 + [500]
    result = prime(of_the_api).result
    assert result["gate"]["returned"] == "zero_shot"
    assert result["metrics"]["test"] is None
    assert result["metrics"]["validation"]["accuracy"] == 1.0


def test_classes_of_other_names_are_counted(prime, model, coloured):
    described = model.description(batch_size=10, classes=[f"label {i}" for i in range(10)])
    result = prime(coloured, description=described).result
    assert result["gate"]["zero_shot_by"] == "frequent_mapping"


def test_a_budget_below_one_pass_is_refused_before_anything_is_asked(prime, model, coloured):
    with pytest.raises(CallBudgetSpent, match="at least 3 calls with 30 images"):
        prime(coloured, budget={"max_images": 29})
    assert model.received == 0


def test_refusals(prime, model, coloured):
    with pytest.raises(ValueError, match="from_training"):
        prime(coloured, label_mapping={"kind": "bayesian", "refit": "from_training"}, trainer={"kind": "spsa"})
    assert model.received == 0
    with pytest.raises(SpecError, match="only answers"):
        prime(coloured, encoder="remote:api")
    with pytest.raises(SpecError, match="is not remote"):
        run(JobSpec.parse(SPEC | {"backbone": "builtin/mini-clip"}), coloured)
    model.faults.append("nan")
    with pytest.raises(RemoteAnswerInvalid):
        prime(coloured)


def test_the_head_learns_soft_answers():
    generator = torch.Generator().manual_seed(0)
    features, true = torch.randn(200, 4, generator=generator), torch.randn(4, 3, generator=generator)
    probabilities = (features @ true).softmax(1)
    head = fit_head(features, probabilities, Priming(epochs=60, learning_rate=0.05), seed=0, beat=lambda: None)
    assert torch.allclose(head(features).softmax(1), probabilities, atol=0.02)
    assert not any(parameter.requires_grad for parameter in head.parameters())
