"""Source models from a handful of real digits."""

import json
import zipfile
from contextlib import suppress
from html import escape

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from mr_core import JobSpec, load_adapter, run
from mr_core.adapter_file import zip_adapter
from mr_core.backbones.description import MINI_CLIP
from mr_core.backbones.identifiers import randomised
from mr_core.backbones.loading import load_backbone
from mr_core.datasets.dataset import ImageDataset, open_dataset
from mr_core.datasets.pack import write_pack
from mr_core.errors import DatasetError, JobCancelled, SpecError
from mr_core.features import FeatureCache
from mr_core.jobs.context import JobContext
from mr_core.jobs.train_source.run import initial_backbone
from mr_core.observer import Checkpoint, Observer
from tests.mr_core.jobs.digits import write_digits

SPEC = {
    "kind": "train_source",
    "dataset": "ds_1",
    "architecture": {"kind": "mlp", "depth": 2, "width": 48},
    "canvas_size": 8,
    "trainer": {"epochs": 12, "batch_size": 16, "learning_rate": 0.003},
}
ON_MAP = {
    "backbone": MINI_CLIP,
    "canvas_size": None,
    "architecture": {"kind": "cnn", "depth": 1, "width": 6},
    "trainer": {"epochs": 2, "batch_size": 16},
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits") / "digits.zip", (0, 1, 7), n_train=20, n_test=8)


class Interrupted(Observer):
    """Keeps checkpoints; cancels at the nth sign of life of the training."""

    def __init__(self, cancel_at=None):
        self.kept: dict[str, Checkpoint] = {}
        self.phases: list[str] = []
        self.rows: list[dict] = []
        self._left = cancel_at

    def phase(self, phase):
        self.phases.append(phase)

    def metrics(self, values):
        self.rows.append(dict(values))

    def progress(self, step, total, *, unit="step"):
        self.beat()

    def beat(self):
        if self._left is not None and self.phases[-1:] == ["training"]:
            self._left -= 1
            if self._left == 0:
                raise JobCancelled

    def save_checkpoint(self, name, checkpoint):
        self.kept[name] = checkpoint

    def load_checkpoint(self, name):
        return self.kept.get(name)


def saved(outcome, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(outcome.backbone.weights)
    return path


def test_leaves_a_backbone_that_does_what_its_metrics_say(archive, tmp_path):
    observer = Interrupted()
    outcome = run(JobSpec.parse(SPEC), archive, observer=observer)
    result = json.loads(json.dumps(outcome.result, allow_nan=False))
    assert observer.phases == ["embedding", "training", "evaluating", "publishing"]
    assert len(observer.rows) == result["training"]["epochs"]
    assert {"train_loss", "validation_loss", "validation_accuracy"} <= observer.rows[0].keys()
    assert set(result["baselines"]) == {"majority", "linear_probe"}
    assert result["parameters"] == {"trained": 193 * 48 + 49 * 48 + 49 * 3, "total": 193 * 48 + 49 * 48 + 49 * 3}
    assert result["verdict"]["use"] in {"source", "majority", "linear_probe"}
    assert (result["tangent_kernel"], result["backbone_unchanged"]) == (None, None)
    files = {file.name: file.content for file in outcome.artifacts}
    assert {"plots/curves.svg", "plots/confusion.png", "predictions.csv", "report.html"} <= set(files)
    page = files["report.html"].decode()
    for words in (
        "This source model",
        "A linear probe on the frozen features",
        result["verdict"]["reason"],
        "were trained",
    ):
        assert escape(words) in page
    assert result["metrics"]["test"]["accuracy"] > 0.7
    backbone = load_backbone(outcome.backbone.description, weights=saved(outcome, tmp_path))
    assert backbone.source_classes == ("0", "1", "7")
    right = 0
    with zipfile.ZipFile(archive) as images:
        names = [name for name in images.namelist() if name.startswith("test/")]
        for name in names:
            with images.open(name) as file:
                pixels = np.asarray(Image.open(file).convert("RGB").resize((8, 8)), dtype=np.float32) / 255
            canvas = torch.from_numpy(pixels).permute(2, 0, 1)[None]
            right += backbone.source_classes[int(backbone(canvas, "source_logits").argmax())] == name.split("/")[1]
    assert right / len(names) == result["metrics"]["test"]["accuracy"]


def test_selection_is_by_validation_loss(archive):
    observer = Interrupted()
    result = run(JobSpec.parse(SPEC), archive, observer=observer).result
    losses = [row["validation_loss"] for row in observer.rows]
    assert result["training"]["kept_epoch"] == int(np.argmin(losses))


@pytest.mark.parametrize(
    "changes",
    [
        {"tangent_kernel": {"samples": 9}},
        {
            "augment": True,
            "architecture": {"kind": "vgg", "depth": 2, "width": 4},
            "trainer": {"loss": "squared", "epochs": 3, "batch_size": 16},
        },
    ],
    ids=["kernel", "augmented"],
)
def test_an_interrupted_run_ends_with_the_same_bytes(archive, changes):
    spec = JobSpec.parse(SPEC | changes)
    whole = run(spec, archive)
    for cancel_at in (5, 9):
        observer = Interrupted(cancel_at)
        with suppress(JobCancelled):
            run(spec, archive, observer=observer)
        assert observer.kept["training"].step >= 1
        again = Interrupted()
        again.kept = observer.kept
        resumed = run(spec, archive, observer=again)
        assert resumed.backbone.weights == whole.backbone.weights
        for name in ("metrics", "baselines", "training", "tangent_kernel"):
            assert resumed.result[name] == whole.result[name]


def test_starts_as_the_random_variant_of_what_it_leaves(archive):
    outcome = run(JobSpec.parse(SPEC | {"seed": 4, "trainer": {"epochs": 1}}), archive)
    random = load_backbone(randomised(outcome.backbone.description, seed=4))

    class Context:
        class dataset:
            classes = ("0", "1", "7")

    initial = initial_backbone(JobSpec.parse(SPEC | {"seed": 4}), Context())
    assert initial.state_sha256 == random.state_sha256


def test_on_a_frozen_map_the_base_stays_as_it_is(archive, tmp_path):
    outcome = run(JobSpec.parse(SPEC | ON_MAP), archive)
    result = outcome.result
    assert result["input"] == {"shape": [1280, 3, 3], "from": "feature_map"}
    assert result["backbone_unchanged"] is True
    trained = load_backbone(outcome.backbone.description, weights=saved(outcome, tmp_path))
    base = load_backbone(MINI_CLIP)
    own, stock = trained.source.base.state_dict(), base.source.map_tower().state_dict()
    assert own.keys() == stock.keys()
    assert all(torch.equal(own[name], stock[name]) for name in own)
    assert result["parameters"]["trained"] == 9 * 1280 * 6 + 6 + 7 * 3
    assert trained.preprocessing == base.preprocessing


def test_maps_are_shared_and_change_nothing(archive, tmp_path):

    class Kept(FeatureCache):
        def __init__(self):
            self.sets, self.hits = {}, 0

        def load(self, key):
            self.hits += key in self.sets
            return self.sets.get(key)

        def save(self, key, arrays):
            self.sets[key] = {name: np.array(values) for name, values in arrays.items()}

    dataset, cache, weights = open_dataset(archive, scratch=tmp_path), Kept(), []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        context = JobContext(dataset=dataset, load_backbone=load_backbone, scratch=tmp_path / name, features=cache)
        weights.append(JobSpec.parse(SPEC | ON_MAP).run(context).backbone.weights)
    assert weights[0] == weights[1]
    assert (len(cache.sets), cache.hits) == (2, 2)


def test_the_kernel_before_and_after(archive):
    result = run(JobSpec.parse(SPEC | {"tangent_kernel": {"samples": 12}}), archive).result
    kernels = result["tangent_kernel"]
    assert set(kernels) == {"initial", "trained", "infinite_width"}
    for when in ("initial", "trained"):
        assert (kernels[when]["n_samples"], kernels[when]["n_parameters"]) == (12, result["parameters"]["trained"])
        assert kernels[when]["lambda_min"] > 0
    assert kernels["initial"]["trace"] != kernels["trained"]["trace"]
    assert kernels["infinite_width"]["lambda_min"] > 0
    # In NTK parametrisation, and wide, the initial kernel is near the limit.
    wide = {"kind": "mlp", "depth": 1, "width": 3000, "parametrisation": "ntk"}
    spec = SPEC | {"architecture": wide, "tangent_kernel": {"samples": 6}, "trainer": {"epochs": 1, "batch_size": 64}}
    kernels = run(JobSpec.parse(spec), archive).result["tangent_kernel"]
    assert kernels["initial"]["trace"] == pytest.approx(kernels["infinite_width"]["trace"], rel=0.1)


def test_an_adapter_is_trained_around_it_and_loads_with_the_file(archive, tmp_path):
    outcome = run(JobSpec.parse(SPEC | {"trainer": {"epochs": 2}}), archive)
    path = saved(outcome, tmp_path)
    description = outcome.backbone.description
    spec = JobSpec.parse(
        {"kind": "reprogram", "dataset": "d", "backbone": "trained:job_1", "label_mapping": {"kind": "identity"},
         "input_transform": {"kind": "fully_connected", "image_size": 8}, "trainer": {"kind": "gradient", "epochs": 1}}
    )  # fmt: skip
    context = JobContext(
        dataset=open_dataset(archive, scratch=tmp_path),
        load_backbone=lambda _: load_backbone(description, weights=path),
        scratch=tmp_path,
    )
    adapter = spec.run(context).adapter
    classifier = load_adapter(zip_adapter(adapter), backbone=path)
    with zipfile.ZipFile(archive) as images:
        assert classifier.predict([images.read("test/0/20.png")])[0].label in {"0", "1", "7"}
    other = tmp_path / "other.safetensors"
    other.write_bytes(outcome.backbone.weights[:-4] + bytes(4))
    with pytest.raises(Exception, match="sha256"):
        load_adapter(zip_adapter(adapter), backbone=other)


def test_one_class_is_refused(tmp_path):
    pack = tmp_path / "one.pack.zip"
    with write_pack(pack) as writer:
        for i in range(6):
            writer.add(Image.new("RGB", (8, 8), (9 * i, 0, 0)), split="train", class_name="only", name=f"{i}.png")
    with pytest.raises(DatasetError, match="1 class has training images"):
        run(JobSpec.parse(SPEC), ImageDataset.open(pack))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": {"kind": "vgg", "depth": 6, "group_size": 1}}, "halves its map 6 times"),
        ({"architecture": {"kind": "mlp", "width": 16_384}, "canvas_size": 512}, "expected at most 134217728"),
        ({"tangent_kernel": {"samples": 1000, "kernel": "full"}}, None),
        (ON_MAP | {"backbone": "random:torchvision:vit_b_32/x"}, "no spatial feature map"),
        (ON_MAP | {"architecture": {"kind": "vgg", "depth": 5, "group_size": 1}}, "an input of 3 x 3 is too small"),
    ],
)
def test_refuses_what_cannot_be(archive, changes, said):
    spec = JobSpec.parse(SPEC | changes)
    if said is None:  # more than there are: all of them
        assert run(spec, archive).result["tangent_kernel"]["initial"]["n_samples"] == 48
        return
    with pytest.raises(SpecError, match=said):
        run(spec, archive)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": {"kind": "mlp", "depth": 0}}, "depth"),
        ({"architecture": {"kind": "mlp", "depth": 10}}, "depth"),
        ({"architecture": {"kind": "cnn", "depth": 7}}, "depth"),
        ({"architecture": {"kind": "cnn", "width": 0}}, "width"),
        ({"architecture": {"kind": "lstm"}}, "architecture"),
        ({"canvas_size": 7}, "canvas_size"),
        ({"backbone": MINI_CLIP}, "canvas_size is the backbone's"),
        (ON_MAP | {"augment": True}, "augment changes pixels"),
        ({"evaluation": {"validation_fraction": 0}}, "nothing to select on"),
        ({"trainer": {"schedule": "cosine"}}, "schedule"),
    ],
)
def test_names_what_is_wrong(changes, said):
    with pytest.raises(ValidationError, match=said):
        JobSpec.parse(SPEC | changes)


def test_defaults_are_the_papers():
    trainer = JobSpec.parse({"kind": "train_source", "dataset": "d"}).trainer.as_gradient()
    assert (trainer.optimizer, trainer.learning_rate, trainer.weight_decay) == ("adam", 0.001, 0.001)
    assert (trainer.batch_size, trainer.epochs, trainer.patience, trainer.schedule) == (128, 100, 5, "constant")
    assert trainer.selection == "lowest_validation_loss"
