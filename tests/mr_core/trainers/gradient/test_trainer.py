import copy
import math
from contextlib import suppress

import numpy as np
import pytest
import torch

from mr_core.backbones.backbone import Backbone
from mr_core.errors import JobCancelled, TrainingDiverged
from mr_core.input_transforms.identity.spec import IdentitySpec
from mr_core.input_transforms.learnable_resize.spec import LearnableResizeSpec
from mr_core.input_transforms.padding.spec import PaddingSpec
from mr_core.jobs.auto.spec import AutoSpec
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.label_mappings.bayesian.spec import BayesianSpec
from mr_core.label_mappings.bayesian_plus.spec import BayesianPlusSpec
from mr_core.label_mappings.frequent.spec import FrequentSpec
from mr_core.label_mappings.iterative.spec import IterativeSpec
from mr_core.label_mappings.linear.spec import LinearSpec
from mr_core.observer import Checkpoint, Observer
from mr_core.reprogrammed import ReprogrammedModel
from mr_core.trainers import epochs
from mr_core.trainers.gradient.spec import GradientSpec
from mr_core.trainers.trainer import LabelledImages, TrainingRun

CLASSES = ("a", "b", "c")
CPU = torch.device("cpu")


class Recorder(Observer):
    """Keeps checkpoints and metrics; cancels at the nth call of `progress` or `beat` when told to."""

    def __init__(self, checkpoints: dict[str, Checkpoint] | None = None, *, cancel_at: int | None = None) -> None:
        self.checkpoints = checkpoints if checkpoints is not None else {}
        self.rows: list[dict[str, float]] = []
        self._calls, self._cancel_at = 0, cancel_at

    def progress(self, step, total, *, unit="step"):
        assert 0 < step <= total
        self.beat()

    def beat(self):
        self._calls += 1
        if self._calls == self._cancel_at:
            raise JobCancelled

    def metrics(self, values):
        self.rows.append(dict(values))

    def save_checkpoint(self, name, checkpoint):
        self.checkpoints[name] = copy.deepcopy(checkpoint)

    def load_checkpoint(self, name):
        return self.checkpoints.get(name)


def _model(backbone: Backbone, mapping, transform=PaddingSpec(image_size=6)) -> ReprogrammedModel:
    return ReprogrammedModel(transform.build(backbone.preprocessing), backbone, mapping.build(backbone, CLASSES))


def _run(train: LabelledImages, validation: LabelledImages | None = None, **changes) -> TrainingRun:
    defaults = {"observer": Recorder(), "device": CPU, "seed": 0}
    return TrainingRun(train=train, validation=validation, **(defaults | changes))


def _adapter(model: ReprogrammedModel) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items() if not name.startswith("backbone.")}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_equals_a_plain_loop(tiny_backbone, tiny_images, optimizer):
    """Whole batches through torch's own optimiser, in the same order: passes of four images change nothing."""
    data = tiny_images(n=20)
    model, plain = _model(tiny_backbone, LinearSpec()), _model(tiny_backbone, LinearSpec())
    spec = GradientSpec(optimizer=optimizer, epochs=4, batch_size=8, learning_rate=0.05, selection="last")
    spec.build().train(model, _run(data))
    parameters = plain.adapter_parameters()
    stepper = torch.optim.Adam(parameters) if optimizer == "adam" else torch.optim.SGD(parameters, momentum=0.9)
    for epoch in range(4):
        for group in stepper.param_groups:
            group["lr"] = 0.05 * (0.1 if epoch >= 2 else 1)  # 50 % and 72 % of four epochs both fall on epoch 2
            group["lr"] *= 0.1 if epoch >= 2 else 1
        order = np.random.default_rng([0, epoch]).permutation(20)
        for start in range(0, 20, 8):
            batch = order[start : start + 8]
            stepper.zero_grad()
            logits = plain(torch.from_numpy(data.images[batch]).float() / 255)
            torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.labels[batch])).backward()
            stepper.step()
    for name, tensor in _adapter(plain).items():
        torch.testing.assert_close(_adapter(model)[name], tensor, rtol=1e-4, atol=1e-6)


def test_learns(tiny_backbone, tiny_images):
    recorder = Recorder()
    history = (
        GradientSpec(epochs=15, learning_rate=0.1, batch_size=16)
        .build()
        .train(_model(tiny_backbone, LinearSpec()), _run(tiny_images(60), tiny_images(30, seed=1), observer=recorder))
    )
    assert history.rows == recorder.rows
    assert history.rows[-1]["train_loss"] < 0.85 * history.rows[0]["train_loss"]
    scores = [row["validation_accuracy"] for row in history.rows]
    assert history.kept_epoch == scores.index(max(scores))


def test_keeps_the_epoch_with_the_best_validation_accuracy(tiny_backbone, tiny_images):
    validation = tiny_images(30, seed=1)
    model = _model(tiny_backbone, LinearSpec())
    history = GradientSpec(epochs=6, learning_rate=0.5).build().train(model, _run(tiny_images(30), validation))
    predicted = model(validation.batch(slice(None), CPU)).argmax(1).numpy()
    assert float((predicted == validation.labels).mean()) == max(row["validation_accuracy"] for row in history.rows)


@pytest.mark.parametrize(
    "mapping",
    [IterativeSpec(), LinearSpec(), IterativeSpec(refit="from_training"), BayesianSpec(refit="from_training")],
    ids=["iterative", "linear", "iterative_from_training", "bayesian_from_training"],
)
def test_goes_on_after_an_interruption_to_the_same_bytes(tiny_backbone, tiny_images, mapping, monkeypatch):
    monkeypatch.setattr(epochs, "CHECKPOINT_EVERY_S", 0.0)  # a checkpoint at every step
    spec = GradientSpec(epochs=3, batch_size=8)
    data, validation = tiny_images(30), tiny_images(12, seed=1)
    whole = _model(tiny_backbone, mapping)
    expected = spec.build().train(whole, _run(data, validation))
    for cancel_at in range(1, 60, 4):
        kept: dict[str, Checkpoint] = {}
        recorder = Recorder(kept, cancel_at=cancel_at)
        with suppress(JobCancelled):
            spec.build().train(_model(tiny_backbone, mapping), _run(data, validation, observer=recorder))
        resumed = _model(tiny_backbone, mapping)
        found = spec.build().train(resumed, _run(data, validation, observer=Recorder(kept)))
        assert found == expected
        for name, tensor in _adapter(whole).items():
            assert torch.equal(_adapter(resumed)[name], tensor), (cancel_at, name)


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_a_parameter_without_axes_resumes_too(tiny_backbone, tiny_images, averaging):
    spec, transform = GradientSpec(epochs=3, batch_size=8, averaging=averaging), LearnableResizeSpec(image_size=6)
    data, models = tiny_images(16), [_model(tiny_backbone, LinearSpec(), transform) for _ in range(3)]
    expected = spec.build().train(models[0], _run(data, data))
    recorder = Recorder(cancel_at=9)
    with pytest.raises(JobCancelled):
        spec.build().train(models[1], _run(data, data, observer=recorder))
    assert recorder.checkpoints
    assert spec.build().train(models[2], _run(data, data, observer=Recorder(recorder.checkpoints))) == expected
    assert torch.equal(models[0].input_transform.scale, models[2].input_transform.scale)


def test_no_backbone_weight_ever_receives_a_gradient(tiny_backbone, tiny_images):
    touched = []
    for name, parameter in tiny_backbone.named_parameters():
        assert not parameter.requires_grad
        parameter.requires_grad_(True)  # a hook needs it; the trainer must not lead gradients here by itself
        parameter.register_hook(lambda gradient, name=name: touched.append(name))
        parameter.requires_grad_(False)
    GradientSpec(epochs=1).build().train(_model(tiny_backbone, LinearSpec()), _run(tiny_images(8), tiny_images(8)))
    assert touched == []
    assert all(parameter.grad is None for parameter in tiny_backbone.parameters())


def test_leaves_the_backbone_in_eval_mode(tiny_backbone, tiny_images):
    before = {name: tensor.clone() for name, tensor in tiny_backbone.state_dict().items()}
    model = _model(tiny_backbone, LinearSpec())
    model.train()
    GradientSpec(epochs=1).build().train(model, _run(tiny_images(8), tiny_images(8)))
    assert not any(module.training for module in tiny_backbone.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_backbone.state_dict().items())


def test_rows_of_another_run_carry_its_name(tiny_backbone, tiny_images):
    recorder = Recorder()
    run = _run(tiny_images(8), tiny_images(8), observer=recorder, name="control")
    GradientSpec(epochs=1).build().train(_model(tiny_backbone, LinearSpec()), run)
    assert set(recorder.rows[0]) >= {"control/epoch", "control/validation_accuracy"}
    assert list(recorder.checkpoints) == ["control"]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup_steps": 3},
        {"optimizer": "sgd", "weight_decay": 0.1, "momentum": 0.5, "loss": "focal", "focal_gamma": 1.5},
        {"loss": "squared", "schedule": "constant"},
    ],
    ids=["adamw-cosine-warmup", "sgd-focal", "adam-squared"],
)
def test_options_equal_a_plain_loop(tiny_backbone, tiny_images, changes):
    data = tiny_images(n=20)
    spec = GradientSpec(epochs=3, batch_size=8, learning_rate=0.05, selection="last", **changes)
    model, plain = _model(tiny_backbone, LinearSpec()), _model(tiny_backbone, LinearSpec())
    spec.build().train(model, _run(data))
    parameters, decay = plain.adapter_parameters(), changes.get("weight_decay", 0)
    stepper = {
        "adam": lambda: torch.optim.Adam(parameters),
        "adamw": lambda: torch.optim.AdamW(parameters, weight_decay=decay),
        "sgd": lambda: torch.optim.SGD(parameters, momentum=0.5, weight_decay=decay),
    }[spec.optimizer]()
    step = 0
    for epoch in range(3):
        order = np.random.default_rng([0, epoch]).permutation(20)
        for start in range(0, 20, 8):
            if spec.schedule == "cosine":  # nine steps, three of them warm-up
                rates = [0.05 / 4, 0.05 / 2, 0.15 / 4] + [0.025 * (1 + math.cos(math.pi * i / 6)) for i in range(6)]
                rate = rates[step]
            else:
                rate = 0.05 * (1 if spec.schedule == "constant" else [1, 0.1, 0.01][epoch])
            for group in stepper.param_groups:
                group["lr"] = rate
            batch = order[start : start + 8]
            stepper.zero_grad()
            probabilities = plain(torch.from_numpy(data.images[batch]).float() / 255)
            targets, total = data.labels[batch], 0.0
            for row, target in zip(probabilities, targets, strict=True):
                p = row.softmax(0)[target]
                if spec.loss == "squared":
                    total = total + sum((row[c] - float(c == target)) ** 2 for c in range(3)) / 2
                else:
                    total = total - (1 - p) ** (1.5 if spec.loss == "focal" else 0) * p.log()
            (total / len(batch)).backward()
            stepper.step()
            step += 1
    for name, tensor in _adapter(plain).items():
        torch.testing.assert_close(_adapter(model)[name], tensor, rtol=1e-4, atol=1e-5)


def test_stops_where_validation_no_longer_gains(tiny_backbone, tiny_images):
    data, validation = tiny_images(30), tiny_images(30, seed=1)
    spec = GradientSpec(epochs=50, learning_rate=1e-9, patience=3)  # the first epoch stays the best
    model = _model(tiny_backbone, LinearSpec())
    history = spec.build().train(model, _run(data, validation))
    assert len(history.rows) == 4
    assert history.kept_epoch == 0
    assert history.stopped_early
    recorder = Recorder()
    spec.build().train(_model(tiny_backbone, LinearSpec()), _run(data, validation, observer=recorder))
    again = spec.build().train(_model(tiny_backbone, LinearSpec()), _run(data, validation, observer=recorder))
    assert again == history  # an attempt that comes after the end trains no further


def test_a_start_at_the_probe_is_kept_where_training_only_spoils_it(tiny_backbone, tiny_images, monkeypatch):
    """Steps far too large: every epoch ends below the probe, which therefore stays, through interruptions too."""
    monkeypatch.setattr(epochs, "CHECKPOINT_EVERY_S", 0.0)
    data, validation = tiny_images(60), tiny_images(60, seed=1)
    spec = GradientSpec(epochs=3, batch_size=16, learning_rate=1e4)
    probe = _model(tiny_backbone, LinearSpec(start="probe"))
    outputs = [
        (probe.backbone_outputs(part.batch(slice(None), CPU)), part.targets(slice(None), CPU))
        for part in (data, validation)
    ]
    probe.label_mapping.fit(*outputs[0], validation=outputs[1])
    kept: dict[str, Checkpoint] = {}
    with pytest.raises(JobCancelled):
        spec.build().train(
            _model(tiny_backbone, LinearSpec(start="probe")),
            _run(data, validation, observer=Recorder(kept, cancel_at=6)),
        )
    model = _model(tiny_backbone, LinearSpec(start="probe"))
    history = spec.build().train(model, _run(data, validation, observer=Recorder(kept)))
    accuracy = float((probe(validation.batch(slice(None), CPU)).argmax(1).numpy() == validation.labels).mean())
    assert all(row["validation_accuracy"] <= accuracy for row in history.rows)
    assert history.kept_epoch == -1
    assert all(torch.equal(tensor, _adapter(probe)[name]) for name, tensor in _adapter(model).items())


def test_names_the_step_at_which_the_loss_diverged(tiny_backbone, tiny_images):
    spec = GradientSpec(optimizer="sgd", learning_rate=1e38, epochs=5, batch_size=10, selection="last")
    with pytest.raises(TrainingDiverged, match="learning_rate") as caught:
        spec.build().train(_model(tiny_backbone, LinearSpec()), _run(tiny_images(30)))
    assert 1 <= caught.value.step < 15


def test_an_epoch_that_ends_without_a_finite_validation_loss_has_diverged(tiny_backbone, tiny_images):
    """One step an epoch: its own loss is still finite, that of what it has led to is not."""
    spec = GradientSpec(optimizer="sgd", learning_rate=1e30, epochs=1, batch_size=32, loss="squared")
    recorder, model = Recorder(), _model(tiny_backbone, LinearSpec())
    run = _run(tiny_images(30), tiny_images(30, seed=1), observer=recorder)
    with pytest.raises(TrainingDiverged, match="inf at step 1"):
        spec.build().train(model, run)
    assert not recorder.rows


def test_stops_after_the_epoch_that_passes_the_budget(tiny_backbone, tiny_images):
    model = _model(tiny_backbone, LinearSpec())
    history = GradientSpec(epochs=50).build().train(model, _run(tiny_images(8), tiny_images(8), max_seconds=1e-9))
    assert len(history.rows) == 1
    assert history.stopped_by_budget


def test_an_adapter_without_weights_is_its_fitted_mapping(tiny_backbone, tiny_images):
    data = tiny_images(30, size=12)
    model = _model(tiny_backbone, FrequentSpec(), IdentitySpec())
    history = GradientSpec(epochs=9).build().train(model, _run(data, data))
    assert len(history.rows) == 1
    by_hand = FrequentSpec().build(tiny_backbone, CLASSES)
    by_hand.fit(tiny_backbone(data.batch(slice(None), CPU), "source_logits"), torch.from_numpy(data.labels))
    assert torch.equal(model.label_mapping.source_of_target, by_hand.source_of_target)


def _passed(model: ReprogrammedModel, monkeypatch) -> list[torch.Tensor]:
    """The outputs of every pass through the model from now on."""
    outputs: list[torch.Tensor] = []
    read = model.outputs_of

    def recorded(canvases):
        outputs.append(read(canvases))
        return outputs[-1]

    monkeypatch.setattr(model, "outputs_of", recorded)
    return outputs


@pytest.mark.parametrize(
    "spec", [IterativeSpec, BayesianSpec, BayesianPlusSpec], ids=lambda spec: spec.model_fields["kind"].default
)
def test_a_mapping_from_training_is_that_of_what_the_epoch_saw(tiny_backbone, tiny_images, monkeypatch, spec):
    """The published fast edition: an epoch's mapping counts the outputs of the one before, with no pass of its own."""
    data = tiny_images(21)
    model = _model(tiny_backbone, spec(refit="from_training"))
    passed = _passed(model, monkeypatch)
    GradientSpec(epochs=2, batch_size=8, learning_rate=0.5, selection="last").build().train(model, _run(data))
    assert sum(map(len, passed)) == 3 * len(data)  # a fit, and two epochs
    by_hand = spec().build(tiny_backbone, CLASSES)
    order = np.random.default_rng([0, 0]).permutation(len(data))
    by_hand.fit(torch.cat(passed).detach()[len(data) : 2 * len(data)], torch.from_numpy(data.labels[order]))
    torch.testing.assert_close(model.label_mapping.matrix(), by_hand.matrix())


def test_refuses_to_estimate_from_passes_that_training_does_not_take():
    mapping = {"kind": "iterative", "refit": "from_training"}
    with pytest.raises(ValueError, match="spsa sees the images at displaced parameters alone: use 'each_epoch'"):
        ReprogramSpec(dataset="d", label_mapping=mapping, trainer={"kind": "spsa"})
    with pytest.raises(ValueError, match="sees the images at displaced parameters"):
        AutoSpec(dataset="d", label_mappings=[mapping], trainers=[{"kind": "gradient"}, {"kind": "spsa"}])
    with pytest.raises(ValueError, match="has no pass over validation images"):
        BayesianPlusSpec(top_k="validation", refit="from_training")
