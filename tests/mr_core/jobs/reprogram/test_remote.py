"""A model that only answers over HTTP, reprogrammed within a budget."""

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from mr_core import JobSpec, load_adapter, run
from mr_core.adapter_file import zip_adapter
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.remote.source import RemoteSource
from mr_core.backbones.remote.transport import RemoteAccess
from mr_core.errors import BackboneError, CallBudgetSpent, JobCancelled, RemoteAnswerInvalid, SpecError
from mr_core.observer import Observer, Spent
from tests.remote_model import SIDE, serving_model

N_TRAIN, N_VALIDATION, N_TEST, BATCH = 24, 6, 9, 10
PLAIN = 30 + N_TEST
SPEC = {
    "kind": "reprogram",
    "dataset": "ds_1",
    "backbone": "remote:api",
    "input_transform": {"kind": "padding", "image_size": 24},
    "label_mapping": {"kind": "frequent"},
    "trainer": {"kind": "spsa", "epochs": 2, "batch_size": 12, "draws": 1, "rate": 5.0},
    "evaluation": {"validation_fraction": 0.2},
    "budget": {"max_images": 1000},
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
    """Drawing takes longer than these trainings."""
    monkeypatch.setattr("mr_core.jobs.reprogram.run.reprogram_artifacts", lambda **_: [])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three classes of coloured noise: 10 training and 3 test images of each."""
    path = tmp_path_factory.mktemp("noise") / "noise.zip"
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as target:
        for label in range(3):
            for i in range(13):
                pixels = generator.integers(0, 120, (24, 24, 3), dtype=np.uint8)
                pixels[..., label] += 110
                with target.open(f"{'train' if i < 10 else 'test'}/class {label}/{i}.png", "w") as file:
                    Image.fromarray(pixels).save(file, "PNG")
    return path


class Watching(Observer):
    """Keeps checkpoints and what was spent, as a service does; cancels when told to."""

    def __init__(self):
        self.kept, self.noted, self.said, self.cancel_at = {}, Spent(), [], None

    def message(self, text, *, level="info"):
        self.said.append(text)

    def record_spent(self, spent):
        self.noted = spent
        if self.cancel_at is not None and spent.calls > self.cancel_at:
            raise JobCancelled

    def spent(self):
        return self.noted

    def save_checkpoint(self, name, checkpoint):
        self.kept[name] = checkpoint

    def load_checkpoint(self, name):
        return self.kept.get(name)


@pytest.fixture
def reprogram(model, archive):
    def reprogram(observer=None, description=None, **changes):
        spec = JobSpec.parse(SPEC | changes)
        return run(spec, archive, observer=observer, backbones={"remote:api": remote(model, description)})

    return reprogram


def remote(model, description=None):
    described = description or model.description(batch_size=BATCH, attempts=1)
    return load_backbone(described, access=RemoteAccess(sleep=lambda _: None))


@pytest.mark.parametrize(
    "trainer",
    [SPEC["trainer"], {"kind": "zeroth_order", "epochs": 2, "batch_size": 12, "directions": 2, "learning_rate": 0.1}],
    ids=lambda trainer: trainer["kind"],
)
def test_no_gradient_of_the_backbone_is_asked_for(reprogram, model, monkeypatch, trainer):
    def refuse(*_, **__):
        raise AssertionError("a gradient was asked for")

    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    asked, outputs = [], RemoteSource.outputs

    def watched(self, canvases, names):
        asked.append(torch.is_grad_enabled() and canvases.requires_grad)
        return outputs(self, canvases, names)

    monkeypatch.setattr(RemoteSource, "outputs", watched)
    result = json.loads(json.dumps(reprogram(trainer=trainer).result, allow_nan=False))
    assert asked
    assert not any(asked)
    assert (result["remote"]["calls"], result["remote"]["images"]) == (model.served, model.images)
    assert result["remote"]["budget"] == {"max_calls": None, "max_images": 1000}
    assert result["remote"]["budget_spent"] is False
    assert result["training"]["epochs"] == 2
    assert result["backbone_unchanged"] is None
    assert all(result["baselines"][name] for name in ("majority", "mapping_only", "linear_probe", "zero_shot"))


def test_training_counts_as_the_method_says(reprogram, model):
    result = reprogram().result
    steps, passes, epochs = 2, 2, 2
    training = epochs * (N_TRAIN * passes + N_VALIDATION)
    assert steps * 12 == N_TRAIN
    start = N_TRAIN + N_VALIDATION  # the mapping's fit, and how good the untrained adapter is
    expected = PLAIN + start + training + N_TEST  # the kept adapter's answers on validation images are remembered
    assert model.images == result["remote"]["images"] == expected


def test_asking_for_a_gradient_is_refused(model):
    canvases = torch.rand(1, 3, SIDE, SIDE, requires_grad=True)
    with pytest.raises(SpecError, match="gives no gradient"):
        remote(model)(canvases, "source_logits")
    assert model.received == 0


def test_the_adapter_answers_as_its_metrics_say(reprogram, model, archive, tmp_path):
    outcome = reprogram()
    path = tmp_path / "adapter.zip"
    path.write_bytes(zip_adapter(outcome.adapter))
    with pytest.raises(BackboneError, match="reached over HTTP"):
        load_adapter(path)
    with pytest.raises(BackboneError, match="not the backbone this adapter was trained on"):
        load_adapter(path, remote(model, model.description(revision="2")))
    classifier = load_adapter(path, remote(model, model.description(batch_size=2)))
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.startswith("test/"))
        answers = classifier.predict([opened.read(name) for name in names])
    right = [answer.label == name.split("/")[1] for answer, name in zip(answers, names, strict=True)]
    assert np.mean(right) == outcome.result["metrics"]["test"]["accuracy"]


@pytest.mark.parametrize(("selection", "kept"), [("best_validation", -1), ("last", 0)])
def test_a_budget_spent_in_the_first_epoch_leaves_its_start_or_what_it_came_to(reprogram, model, selection, kept):
    budget = PLAIN + N_TRAIN + N_VALIDATION * (kept == -1) + 2 * 12 + N_VALIDATION + N_TEST + 13
    observer = Watching()
    trainer = SPEC["trainer"] | {"selection": selection}
    result = reprogram(observer, trainer=trainer, budget={"max_images": budget}).result
    assert model.images <= budget
    assert result["remote"] == {
        "calls": model.served,
        "images": model.images,
        "budget": {"max_calls": None, "max_images": budget},
        "budget_spent": True,
    }
    assert result["training"] == {"epochs": 0, "kept_epoch": kept, "stopped_by_budget": True, "stopped_early": False}
    assert result["metrics"]["test"]["n"] == N_TEST
    assert "The call budget was spent after 0 of 2 epochs" in result["verdict"]["reason"]
    assert any("training ends in epoch 0" in text for text in observer.said)


def test_a_budget_spent_in_a_later_epoch_keeps_the_best_before_it(reprogram, model):
    by_loss = SPEC["trainer"] | {"selection": "lowest_validation_loss"}
    whole = reprogram(trainer=by_loss | {"epochs": 1})
    spent = model.images
    model.images = model.served = 0
    cut = reprogram(trainer=by_loss | {"epochs": 9}, budget={"max_images": spent + N_VALIDATION + 20})
    assert model.images <= spent + N_VALIDATION + 20
    assert cut.result["training"] == {
        "epochs": 1,
        "kept_epoch": 0,
        "stopped_by_budget": True,
        "stopped_early": False,
    }
    assert cut.adapter.weights == whole.adapter.weights
    assert "The call budget was spent after 1 of 9 epochs" in cut.result["verdict"]["reason"]


def test_seconds_are_no_calls(reprogram, model):
    result = reprogram(trainer=SPEC["trainer"] | {"epochs": 9}, budget={"max_images": 5000, "max_seconds": 1e-9}).result
    assert result["training"]["stopped_by_budget"] is True
    assert result["remote"]["budget_spent"] is False
    assert "call budget" not in result["verdict"]["reason"]


def test_an_adapter_is_kept_where_its_test_images_go_unanswered(reprogram, model):
    spec = {"trainer": SPEC["trainer"] | {"selection": "last"}, "evaluation": {"validation_fraction": 0}}
    whole = reprogram(**spec)
    n_requests = model.received
    for judged, changes in (("the remote", {}), ("the budget of", {"budget": {"max_images": model.images}})):
        model.forget()
        model.faults += [None] * (n_requests - -(-N_TEST // BATCH)) + [500]
        description = model.description(batch_size=BATCH, attempts=2 if changes else 1)
        outcome = reprogram(description=description, **spec, **changes)
        assert outcome.adapter.weights == whole.adapter.weights
        assert outcome.result["metrics"]["test"] is None
        assert f"The test images could not be judged: {judged}" in outcome.result["verdict"]["reason"]


def test_calls_are_limited_too(reprogram, model):
    calls = -(-30 // BATCH) + 1 + 3 + 1 + 4 + 1 + 1 + 3  # plain, test, fit, start, a step, validation, test, some more
    result = reprogram(budget={"max_calls": calls}).result
    assert model.served == result["remote"]["calls"] <= calls
    assert result["remote"]["budget_spent"] is True


def test_a_budget_that_cannot_do_is_refused_before_anything_is_asked(reprogram, model):
    least = PLAIN + N_TRAIN + 2 * 12 + 2 * N_VALIDATION + N_TEST
    with pytest.raises(CallBudgetSpent, match=f"with {least} images") as error:
        reprogram(budget={"max_images": least - 1})
    assert (error.value.param, model.received) == ("budget.max_images", 0)
    with pytest.raises(CallBudgetSpent, match="at least 14 calls") as error:
        reprogram(budget={"max_calls": 13})
    assert (error.value.param, model.received) == ("budget.max_calls", 0)
    reprogram(budget={"max_images": least})
    assert model.images <= least


def test_a_stopped_job_goes_on_within_the_same_budget(reprogram, model, monkeypatch):
    monkeypatch.setattr("mr_core.backbones.remote.oracle.KEEP_EVERY_S", 0)
    monkeypatch.setattr("mr_core.trainers.epochs.CHECKPOINT_EVERY_S", 0)
    undisturbed = reprogram()
    alone = model.images
    model.images = model.served = 0
    observer = Watching()
    for stop_at in (2, 6, 11, 14):
        observer.cancel_at = stop_at
        with pytest.raises(JobCancelled):
            reprogram(observer)
    observer.cancel_at = None
    resumed = reprogram(observer)
    assert resumed.adapter.weights == undisturbed.adapter.weights
    assert model.images == alone, "no answer was paid for twice"
    assert resumed.result["remote"]["images"] >= model.images, "four requests were noted and never went out"


def test_a_head_alone_asks_for_each_image_once(reprogram, model):
    result = reprogram(
        input_transform={"kind": "identity"},
        label_mapping={"kind": "linear", "on": "source_logits"},
        trainer={"kind": "gradient", "epochs": 3},
        budget={"max_images": PLAIN},
    ).result
    assert model.images == PLAIN == result["remote"]["images"]
    assert result["remote"]["budget_spent"] is False


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"budget": {}}, "budget.max_images"),
        ({"trainer": {"kind": "gradient"}}, "trainer.kind"),
        ({"label_mapping": {"kind": "linear"}}, "label_mapping.kind"),
        ({"label_mapping": {"kind": "text"}}, "label_mapping.kind"),
        ({"repeats": 2}, "repeats"),
        ({"precision": "bfloat16"}, "precision"),
        ({"evaluation": {"random_backbone": True}}, "evaluation.random_backbone"),
        ({"input_transform": {"kind": "padding", "image_size": "auto"}}, "input_transform.image_size"),
    ],
)
def test_what_a_backbone_that_only_answers_cannot_do(reprogram, model, changes, param):
    with pytest.raises(SpecError) as error:
        reprogram(**changes)
    assert (error.value.param, model.received) == (param, 0)


def test_other_kinds_refuse_it(model, archive):
    for kind in ("diagnose", "trial"):
        with pytest.raises(SpecError, match="only answers"):
            run(
                JobSpec.parse({"kind": kind, "dataset": "ds_1", "backbone": "remote:api"}),
                archive,
                backbones={"remote:api": remote(model)},
            )


def test_calls_of_a_local_backbone_are_not_limited(archive):
    with pytest.raises(SpecError, match="belongs to a remote backbone") as error:
        run(JobSpec.parse(SPEC | {"backbone": "builtin/mini-clip"}), archive)
    assert error.value.param == "budget.max_images"


def test_answers_of_another_model_end_the_job(reprogram, model):
    model.faults.append("fewer classes")
    with pytest.raises(RemoteAnswerInvalid, match="9 classes"):
        reprogram()


def test_classes_of_other_names_leave_zero_shot_out(reprogram, model):
    described = model.description(batch_size=BATCH, classes=[f"label {i}" for i in range(10)])
    result = reprogram(description=described).result
    assert result["baselines"]["zero_shot"] is None
    assert result["baselines"]["mapping_only"] is not None


def test_an_adapter_around_it_is_evaluated_for_its_price(reprogram, model, archive, tmp_path):
    path = tmp_path / "adapter.zip"
    outcome = reprogram()
    path.write_bytes(zip_adapter(outcome.adapter))
    model.images = model.received = 0

    def evaluate(**budget):
        spec = {"kind": "evaluate", "dataset": "ds_1", "adapter": "ad_1", "budget": budget}
        return run(JobSpec.parse(spec), archive, adapter=path, backbones={"remote:api": remote(model)}).result

    with pytest.raises(CallBudgetSpent, match="at least 1 calls with 9 images"):
        evaluate(max_images=8)
    assert model.received == 0
    result = evaluate(max_images=9)
    assert result["metrics"]["test"]["accuracy"] == outcome.result["metrics"]["test"]["accuracy"]
    assert result["remote"]["images"] == model.images == 9
