"""The whole job in this process, on a handful of real digits and the built-in model."""

import csv
import json
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mr_core import JobSpec, load_adapter, run
from mr_core.adapter_file import zip_adapter
from mr_core.backbones.description import MINI_CLIP
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.weights import state_sha256
from mr_core.errors import JobCancelled, SpecError
from mr_core.observer import Checkpoint, Observer

SPEC = {
    "kind": "reprogram",
    "dataset": "ds_1",
    "input_transform": {"kind": "padding", "image_size": 48},
    "label_mapping": {"kind": "iterative"},
    "trainer": {"kind": "gradient", "epochs": 2, "batch_size": 32},
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Three classes of handwritten digits: 20 training and 8 test images of each."""
    path = tmp_path_factory.mktemp("digits") / "digits.zip"
    digits = load_digits()
    with zipfile.ZipFile(path, "w") as target:
        for digit in (0, 1, 7):
            for i, values in enumerate(digits.images[digits.target == digit][:28]):
                image = Image.fromarray((values * 255 / 16).astype("uint8"))
                with target.open(f"{'train' if i < 20 else 'test'}/{digit}/{i}.png", "w") as file:
                    image.save(file, "PNG")
    return path


class Interrupted(Observer):
    """Keeps checkpoints; cancels at the nth sign of life."""

    def __init__(self, cancel_at: int | None = None) -> None:
        self.kept: dict[str, Checkpoint] = {}
        self.phases: list[str] = []
        self._left = cancel_at

    def phase(self, phase):
        self.phases.append(phase)

    def progress(self, step, total, *, unit="step"):
        self.beat()

    def beat(self):
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise JobCancelled

    def save_checkpoint(self, name, checkpoint):
        self.kept[name] = checkpoint

    def load_checkpoint(self, name):
        return self.kept.get(name)


def test_leaves_an_adapter_that_does_what_its_metrics_say(archive):
    observer = Interrupted()
    outcome = run(JobSpec.parse(SPEC), archive, observer=observer)
    assert observer.phases == ["embedding", "training", "evaluating", "publishing"]
    result = json.loads(json.dumps(outcome.result, allow_nan=False))
    assert result["backbone_unchanged"] is True
    assert result["trainable_parameters"] == 3 * (96**2 - 48**2)
    assert result["metrics"]["test"]["n"] == 24
    assert set(result["baselines"]) == {"majority", "mapping_only", "linear_probe", "zero_shot", "random_backbone"}
    assert result["baselines"]["random_backbone"] is None
    assert result["baselines"]["linear_probe"]["test"]["accuracy"] > 0.8
    assert result["verdict"]["use"] in {"adapter", *result["baselines"]}
    assert {"plots/curves.svg", "plots/prompt.png", "plots/mapping.svg", "plots/confusion.svg", "report.html"} <= {
        artifact.name for artifact in outcome.artifacts
    }
    classifier = load_adapter(zip_adapter(outcome.adapter))
    assert classifier.classes == ("0", "1", "7")
    predictions = next(artifact for artifact in outcome.artifacts if artifact.name == "predictions.csv")
    rows = list(csv.DictReader(predictions.content.decode().splitlines()))
    assert sum(row["label"] == row["predicted"] for row in rows) / 24 == result["metrics"]["test"]["accuracy"]
    assert {row["image"] for row in rows} == {name for name in zipfile.ZipFile(archive).namelist() if "test/" in name}
    right = 0
    with zipfile.ZipFile(archive) as images:
        for name in images.namelist():
            if name.startswith("test/"):
                right += classifier.predict([images.read(name)])[0].label == name.split("/")[1]
    assert right / 24 == pytest.approx(result["metrics"]["test"]["accuracy"])
    assert classifier.config["backbone"]["state_sha256"] == state_sha256(load_backbone(MINI_CLIP).source)


def test_an_interrupted_run_ends_with_the_same_bytes(archive):
    spec = JobSpec.parse(SPEC | {"evaluation": {"random_backbone": True}})
    whole = run(spec, archive)
    for cancel_at in (40, 75):
        observer = Interrupted(cancel_at)
        with suppress(JobCancelled):
            run(spec, archive, observer=observer)
        again = Interrupted()
        again.kept = observer.kept
        resumed = run(spec, archive, observer=again)
        assert zip_adapter(resumed.adapter) == zip_adapter(whole.adapter)
        assert resumed.result["baselines"] == whole.result["baselines"]
    assert whole.result["baselines"]["random_backbone"]["test"]["accuracy"] <= 1


def test_several_seeds_and_an_open_image_size(archive):
    spec = SPEC | {
        "input_transform": {"kind": "padding", "image_size": "auto"},
        "trainer": {"kind": "gradient", "epochs": 1, "batch_size": 32},
        "repeats": 2,
        "seed": 5,
    }
    outcome = run(JobSpec.parse(spec), archive)
    result = outcome.result
    tried = result["image_size"]["tried"]
    assert [scale["image_size"] for scale in tried] == [24, 36, 48, 60, 72, 84]
    best = max(tried, key=lambda scale: (scale["validation_accuracy"], scale["image_size"]))
    assert result["image_size"]["chosen"] == best["image_size"]
    config = json.loads(outcome.adapter.config)
    assert config["spec"]["input_transform"]["image_size"] == best["image_size"]  # settled: the adapter builds alone
    seeds = result["seeds"]
    assert seeds["n"] == 2
    for part in ("validation", "test"):
        first, second = seeds[part]["accuracy"]
        assert seeds[part]["mean"] == pytest.approx((first + second) / 2)
        assert seeds[part]["deviation"] == pytest.approx(abs(first - second) / 2**0.5)
    kept = seeds["adapter"] - 5
    assert seeds["validation"]["accuracy"][kept] == max(seeds["validation"]["accuracy"])
    assert result["metrics"]["test"]["accuracy"] == seeds["test"]["accuracy"][kept]


def test_an_open_image_size_needs_validation_images(archive):
    spec = SPEC | {
        "input_transform": {"kind": "padding", "image_size": "auto"},
        "trainer": {"kind": "gradient", "epochs": 1, "selection": "last"},
        "evaluation": {"validation_fraction": 0},
    }
    with pytest.raises(SpecError, match="chosen on validation images, and there are none"):
        run(JobSpec.parse(spec), archive)


@pytest.mark.parametrize(
    ("transform", "mapping"),
    [
        ({"kind": "watermark", "width": 10}, {"kind": "linear", "start": "probe"}),
        ({"kind": "sequence"}, {"kind": "bayesian_plus", "top_k": "validation"}),
    ],
    ids=["watermark-probe", "sequence-bayesian"],
)
def test_other_methods_end_in_an_adapter_that_loads(archive, transform, mapping):
    spec = SPEC | {
        "input_transform": transform,
        "label_mapping": mapping,
        "trainer": {"kind": "gradient", "epochs": 1, "batch_size": 32, "learning_rate": 0.001},
    }
    outcome = run(JobSpec.parse(spec), archive)
    if mapping["kind"] == "linear":  # begins as the probe, on images that fill the canvas
        probe = outcome.result["baselines"]["linear_probe"]["validation"]["accuracy"]
        assert outcome.result["metrics"]["validation"]["accuracy"] >= probe - 0.1
    classifier = load_adapter(zip_adapter(outcome.adapter))
    right = 0
    with zipfile.ZipFile(archive) as images:
        names = [name for name in images.namelist() if name.startswith("test/")]
        for name, prediction in zip(names, classifier.predict([images.read(name) for name in names]), strict=True):
            right += prediction.label == name.split("/")[1]
    assert right / len(names) == pytest.approx(outcome.result["metrics"]["test"]["accuracy"])


def test_trains_in_bfloat16_and_is_judged_in_float32(archive):
    spec = SPEC | {
        "backbone": "random:timm:test_vit",
        "input_transform": {"kind": "watermark"},
        "label_mapping": {"kind": "bayesian"},
        "trainer": {"kind": "gradient", "epochs": 1, "batch_size": 32},
        "precision": "bfloat16",
    }
    outcome = run(JobSpec.parse(spec), archive)
    assert outcome.result["backbone_unchanged"]
    classifier = load_adapter(zip_adapter(outcome.adapter))  # in float32
    predictions = next(artifact for artifact in outcome.artifacts if artifact.name == "predictions.csv")
    rows = list(csv.DictReader(predictions.content.decode().splitlines()))
    with zipfile.ZipFile(archive) as images:
        for row, found in zip(rows, classifier.predict([images.read(row["image"]) for row in rows]), strict=True):
            assert found.label == row["predicted"]
            assert found.probability == pytest.approx(float(row["probability"]), abs=1e-5)


def test_bfloat16_is_refused_where_the_gradient_does_not_hold(archive):
    with pytest.raises(SpecError, match="does not keep its gradient in bfloat16") as refused:
        run(JobSpec.parse(SPEC | {"precision": "bfloat16"}), archive)
    assert refused.value.param == "precision"


def test_refuses_what_cannot_be(archive):
    too_large = SPEC | {"input_transform": {"kind": "padding", "image_size": 96}}
    with pytest.raises(SpecError, match="leaves no frame"):
        run(JobSpec.parse(too_large), archive)
    no_text = SPEC | {"backbone": "random:timm:test_convnext", "label_mapping": {"kind": "text"}}
    with pytest.raises(SpecError, match="no text tower"):
        run(JobSpec.parse(no_text), archive)
