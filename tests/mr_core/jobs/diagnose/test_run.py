"""A diagnosis end to end, on coloured squares and a random source model of two convolutions."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from mr_core.adapter import save_adapter
from mr_core.datasets.dataset import open_dataset
from mr_core.errors import JobCancelled, KernelError, SpecError
from mr_core.job_spec import JobSpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.reprogram.spec import ReprogramSpec
from mr_core.observer import Observer
from mr_core.reprogrammed import ReprogrammedModel
from mr_core.sub_jobs import SubJobs

COLOURS = {"blue": (20, 20, 230), "green": (20, 230, 20), "red": (230, 20, 20)}
SPECTRUM_KEYS = {
    "n_samples", "n_classes", "n_parameters", "kernel", "lambda_max", "lambda_min", "numerical_rank",
    "condition_number", "effective_rank", "trace", "label_energy", "kernel_target_alignment", "resolution",
    "method", "precision", "error", "approximation",
}  # fmt: skip


class Recorder(Observer):
    def __init__(self, *, cancel_in=None):
        self.phases, self.messages, self.cancel_in = [], [], cancel_in

    def phase(self, phase):
        self.phases.append(phase)

    def message(self, text, *, level="info"):
        self.messages.append(text)

    def progress(self, step, total, *, unit="step"):
        if self.phases[-1] == self.cancel_in:
            raise JobCancelled


def archive(path, *, per_class=8, colours=COLOURS, repeat_first=False):
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as file:
        for name, colour in colours.items():
            for index in range(per_class):
                pixels = np.clip(np.array(colour) + generator.integers(-20, 20, (10, 10, 3)), 0, 255).astype(np.uint8)
                data = io.BytesIO()
                Image.fromarray(pixels).save(data, "PNG")
                file.writestr(f"train/{name}/{index}.png", data.getvalue())
                if index == 0:
                    file.writestr(f"test/{name}/{index}.png", data.getvalue())
                if repeat_first and index == 0 and name == "red":
                    file.writestr("train/red/again.png", data.getvalue())
    return path


@pytest.fixture
def run(tmp_path, tiny_backbone, monkeypatch):
    """Runs a diagnosis of the squares with the fields given; draws pictures only where asked, as they take longest."""

    def diagnose(
        *, observer=None, adapter_folder=None, sub_jobs=None, colours=COLOURS, repeat_first=False, draw=False, **fields
    ):
        if not draw:
            monkeypatch.setattr("mr_core.jobs.diagnose.run.diagnose_artifacts", lambda **_: [])
        squares = archive(tmp_path / "squares.zip", colours=colours, repeat_first=repeat_first)
        dataset = open_dataset(squares, scratch=tmp_path)
        context = JobContext(
            dataset=dataset,
            load_backbone=lambda _: tiny_backbone,
            scratch=tmp_path,
            observer=observer or Recorder(),
            adapter=adapter_folder,
            sub_jobs=sub_jobs or SubJobs(),
        )
        spec = {"kind": "diagnose", "dataset": "squares", "input_transform": {"kind": "padding", "image_size": 4}}
        return JobSpec.parse(spec | {"samples": 24} | fields).run(context)

    return diagnose


def test_result_has_the_shape_that_clients_rely_on(run):
    observer = Recorder()
    outcome = run(observer=observer, draw=True)
    result = outcome.result
    assert observer.phases == ["embedding", "diagnosing"]
    assert set(result) == {"spectrum", "predicted", "verdict", "baselines", "scores", "image_size", "timing"}
    assert set(result["spectrum"]) == SPECTRUM_KEYS
    assert (result["spectrum"]["n_samples"], result["spectrum"]["n_classes"]) == (24, 3)
    assert result["spectrum"]["n_parameters"] == 3 * (144 - 16)
    assert set(result["predicted"]) == {
        "accuracy", "accuracy_interval", "linearised_accuracy", "short_training_accuracy", "calibration",
        "training_curve", "n_samples", "linear_regime", "first_steps",
    }  # fmt: skip
    low, high = result["predicted"]["accuracy_interval"]
    assert low <= result["predicted"]["accuracy"] <= high
    assert set(result["verdict"]) == {"label", "reason"}
    assert set(result["baselines"]) == {"majority", "mapping_only", "linear_probe", "zero_shot"}
    assert set(result["scores"]) == {"untrained_accuracy", "logme", "h_score", "leep"}
    assert 0 <= result["scores"]["untrained_accuracy"] <= 1
    assert set(result["timing"]["phases"]) == {"embedding", "diagnosing"}
    json.dumps(result, allow_nan=False)
    assert len(outcome.spectrum.eigenvalues) == len(outcome.spectrum.label_energy) == 72
    assert set(outcome.spectrum.summary["groups"]) == {"input_transform"}
    assert {"plots/spectrum.svg", "plots/curves.svg", "report.html"} <= {file.name for file in outcome.artifacts}


@pytest.mark.parametrize(
    ("mapping", "kernel"),
    [("frequent", "full"), ("frequent", "trace"), ("frequent", "pseudo"), ("linear", "full"), ("text", "full")],
)
def test_learns_what_colours_tell(run, mapping, kernel):
    result = run(label_mapping={"kind": mapping}, kernel=kernel).result
    assert result["baselines"]["majority"] == pytest.approx(1 / 3)
    assert result["predicted"]["accuracy"] >= 1 / 3
    if mapping == "linear":
        assert result["predicted"]["linearised_accuracy"] == 1


def test_the_prediction_is_corrected_by_the_coefficients_in_force(run, coefficients):
    result = run().result
    shares = {
        "linearised": result["predicted"]["linearised_accuracy"],
        "short_training": result["predicted"]["short_training_accuracy"],
        "untrained": result["scores"]["untrained_accuracy"],
        "linear_probe": result["baselines"]["linear_probe"],
    }
    accuracy, interval = coefficients.accuracy(shares, n_classes=3)
    assert result["predicted"]["calibration"] == "test"
    assert (result["predicted"]["accuracy"], result["predicted"]["accuracy_interval"]) == (accuracy, list(interval))
    assert "as 60 adapters have it that were trained on 10 datasets" in result["verdict"]["reason"]


def test_without_the_short_training_the_prediction_is_the_kernels_alone(run, coefficients):
    predicted = run(short_training=False).result["predicted"]
    assert (predicted["short_training_accuracy"], predicted["calibration"]) == (None, None)
    assert predicted["accuracy"] == predicted["linearised_accuracy"]


def test_without_coefficients_the_prediction_is_that_of_the_linearised_model(run):
    result = run().result
    assert result["predicted"]["calibration"] is None
    assert result["predicted"]["accuracy"] == result["predicted"]["linearised_accuracy"]
    assert "not calibrated" in result["verdict"]["reason"]


def test_a_kernel_that_overestimates_prompts_is_not_corrected_as_if_it_did_not(run, coefficients):
    predicted = run(kernel="trace").result["predicted"]
    assert predicted["calibration"] is None
    assert predicted["accuracy"] == predicted["linearised_accuracy"]


def test_a_head_alone_keeps_the_kronecker_form(run):
    outcome = run(label_mapping={"kind": "linear"}, input_transform={"kind": "identity"})
    values = outcome.spectrum.eigenvalues.reshape(24, 3)
    np.testing.assert_array_equal(values, values[:, :1].repeat(3, axis=1))
    assert outcome.result["spectrum"]["n_parameters"] == 3 * 7


def test_same_seed_same_result(run):
    first, second = run(seed=3), run(seed=3)
    np.testing.assert_array_equal(first.spectrum.eigenvalues, second.spectrum.eigenvalues)
    assert first.result["predicted"] == second.result["predicted"]


def test_more_equations_than_parameters_are_rank_limited(run):
    result = run(input_transform={"kind": "padding", "image_size": 11}).result
    assert result["spectrum"]["n_parameters"] == 3 * (144 - 121) < 72
    assert result["spectrum"]["lambda_min"] is None
    assert result["spectrum"]["resolution"]["reason"] == "rank_limited"
    assert result["verdict"]["label"] == "rank_limited"
    assert "69 trainable parameters" in result["verdict"]["reason"]


def test_names_samples_that_repeat_another(run):
    observer = Recorder()
    result = run(observer=observer, repeat_first=True, samples=25).result
    assert any("train/red/" in text and "1 of the 25 samples" in text for text in observer.messages)
    assert result["spectrum"]["numerical_rank"] <= 72


def test_refuses_fewer_samples_than_classes(run):
    shades = {f"shade {i}": (i * 40, 0, 0) for i in range(5)}
    with pytest.raises(SpecError, match="4 samples cannot cover 5 classes"):
        run(colours=shades, samples=4)


def test_two_samples_of_a_class_are_enough_to_run(run):
    result = run(samples=5).result
    assert result["spectrum"]["n_samples"] == 5


def test_refuses_a_model_with_nothing_to_train(run):
    with pytest.raises(SpecError, match="nothing to train"):
        run(input_transform={"kind": "identity"})


def test_refuses_a_kernel_over_the_cap_before_embedding(run, monkeypatch):
    observer = Recorder()
    monkeypatch.setattr("mr_core.jobs.diagnose.run.MEMORY_CAP_BYTES", 1000)
    with pytest.raises(KernelError, match=r"24 samples x 3 classes: .* 'trace' or 'pseudo'"):
        run(observer=observer)


@pytest.mark.parametrize("phase", ["embedding", "diagnosing"])
def test_cancellation_ends_the_run(run, phase):
    with pytest.raises(JobCancelled):
        run(observer=Recorder(cancel_in=phase))


@pytest.fixture
def adapter_folder(tmp_path, tiny_backbone):
    """An adapter with a frame and a linear head, neither at its start."""
    spec = JobSpec.parse(
        {
            "kind": "reprogram",
            "dataset": "squares",
            "input_transform": {"kind": "padding", "image_size": 4},
            "label_mapping": {"kind": "linear"},
        }
    )
    assert isinstance(spec, ReprogramSpec)
    classes = tuple(sorted(COLOURS))
    model = ReprogrammedModel(
        spec.input_transform.build(tiny_backbone.preprocessing),
        tiny_backbone,
        spec.label_mapping.build(tiny_backbone, classes),
    )
    for seed, parameter in enumerate(model.adapter_parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    content = save_adapter(model, spec=spec, classes=classes, record={"metrics": {}})
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "config.json").write_bytes(content.config)
    (folder / "adapter.safetensors").write_bytes(content.weights)
    return folder


def test_takes_the_kernel_of_a_trained_adapter(run, adapter_folder):
    outcome = run(adapter="ad_1", adapter_folder=adapter_folder)
    assert outcome.result["spectrum"]["n_parameters"] == 3 * (144 - 16) + 3 * 7  # the adapter's, not the spec's
    assert outcome.spectrum.summary["groups"]["input_transform"]["trace"] > 0
    assert outcome.result["baselines"]["mapping_only"] is None
    assert "trained adapter" in outcome.result["verdict"]["reason"]


def test_refuses_an_adapter_of_other_classes(run, adapter_folder):
    with pytest.raises(SpecError, match="knows 3 classes"):
        run(adapter="ad_1", adapter_folder=adapter_folder, colours={"a": (0, 0, 0), "b": (9, 9, 9)})
