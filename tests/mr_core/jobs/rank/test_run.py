"""A ranking end to end, on coloured squares, a random source model of two convolutions and one that cannot be."""

import json

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.integrate import quad
from scipy.special import logit
from scipy.stats import beta, norm

from mr_core.datasets.dataset import open_dataset
from mr_core.errors import BackboneError, SpecError
from mr_core.job_spec import JobSpec
from mr_core.jobs import JOB_KINDS
from mr_core.jobs.context import JobContext
from mr_core.jobs.rank.run import accuracy_draws, probability_of_being_best
from mr_core.observer import Observer
from mr_core.sub_jobs import SubJobEnd, SubJobs
from tests.mr_core.jobs.diagnose.test_run import archive

GRID = {
    "backbones": ["builtin/tiny"],
    "input_transforms": [{"kind": "padding", "image_size": 4}, {"kind": "watermark"}],
    "label_mappings": [{"kind": "frequent"}, {"kind": "linear"}],
}


class Keeping(Observer):
    """Keeps checkpoints, as a service does."""

    def __init__(self):
        self.kept = {}

    def save_checkpoint(self, name, checkpoint):
        self.kept[name] = json.loads(json.dumps(checkpoint.state)), checkpoint

    def load_checkpoint(self, name):
        return self.kept[name][1] if name in self.kept else None


@pytest.fixture
def run(tmp_path, tiny_backbone, monkeypatch):
    monkeypatch.setattr("mr_core.jobs.diagnose.run.diagnose_artifacts", lambda **_: [])
    dataset = open_dataset(archive(tmp_path / "squares.zip"), scratch=tmp_path)
    loaded: list[str] = []

    def load(backbone_id):
        loaded.append(backbone_id)
        if backbone_id != "builtin/tiny":
            raise BackboneError(f"there is no backbone {backbone_id}", param="backbone")
        return tiny_backbone

    def rank(*, observer=None, sub_jobs=None, **fields):
        context = JobContext(
            dataset=dataset, load_backbone=load, scratch=tmp_path, observer=observer or Observer(),
            sub_jobs=sub_jobs or SubJobs(),
        )  # fmt: skip
        return JobSpec.parse({"kind": "rank", "dataset": "squares", "samples": 24, **GRID, **fields}).run(context)

    rank.loaded = loaded
    return rank


def test_cells_come_best_first_with_what_each_is_predicted(run):
    outcome = run()
    rows = outcome.result["cells"]
    json.dumps(outcome.result, allow_nan=False)
    assert len(rows) == 4
    accuracies = [row["predicted"]["accuracy"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert sum(row["probability_best"] for row in rows) == pytest.approx(1)
    for row in rows:
        low, high = row["predicted"]["accuracy_interval"]
        assert low <= row["predicted"]["accuracy"] <= high
        assert (row["n_samples"], row["error"]) == (24, None)
        assert row["baselines"]["majority"] == pytest.approx(1 / 3)
        assert row["scores"]["leep"] <= 0
        assert set(row["scores"]) == {"untrained_accuracy", "logme", "h_score", "leep"}
    assert {file.name for file in outcome.artifacts} == {"plots/ranking.svg", "plots/ranking.png"}
    assert outcome.result["verdict"]["label"] == rows[0]["verdict"]["label"]


def test_a_backbone_is_loaded_once_for_all_its_cells_and_once_a_diagnosis(run):
    run(survivors=1)
    assert len(run.loaded) == 1 + 1


def test_only_the_most_promising_cells_get_a_kernel(run):
    rows = run(survivors=1).result["cells"]
    diagnosed, others = rows[0], rows[1:]
    assert diagnosed["probability_best"] == 1
    assert all(row["predicted"] is None and row["probability_best"] is None for row in others)
    untrained = [row["scores"]["untrained_accuracy"] for row in rows]
    assert untrained == sorted(untrained, reverse=True)


def test_its_diagnoses_train_shortly_where_it_says(run, coefficients):
    wanted, left_out = (
        [row["predicted"] for row in run(survivors=1, short_training=wants).result["cells"] if row["predicted"]]
        for wants in (True, False)
    )
    assert [row["calibration"] for row in (*wanted, *left_out)] == ["test", None]


def test_a_cell_with_nothing_to_train_stands_by_what_it_reaches(run):
    rows = run(input_transforms=[{"kind": "identity"}]).result["cells"]
    (alone,) = [row for row in rows if row["label_mapping"]["kind"] == "frequent"]
    assert alone["predicted"]["accuracy"] == alone["scores"]["untrained_accuracy"]
    low, high = alone["predicted"]["accuracy_interval"]
    assert low <= alone["predicted"]["accuracy"] <= high
    assert (alone["verdict"]["label"], alone["n_samples"], alone["error"]) == ("nothing_to_train", 24, None)
    assert sum(row["probability_best"] for row in rows) == pytest.approx(1)


def test_finalists_are_trained_and_lead_by_what_they_reached(run):
    outcome = run(finalists=2, trainer={"kind": "gradient", "epochs": 2})
    rows = outcome.result["cells"]
    assert [row["trained"] is not None for row in rows] == [True, True, False, False]
    reached = [row["trained"]["validation_accuracy"] for row in rows[:2]]
    assert reached == sorted(reached, reverse=True)
    assert {(row["trained"]["epochs"], row["trained"]["n_validation"]) for row in rows[:2]} == {(2, 6)}
    worst = min(row["predicted"]["accuracy"] for row in rows[:2])
    assert worst >= max(row["predicted"]["accuracy"] for row in rows[2:])
    assert f"{reached[0]:.1%} of 6 validation images" in outcome.result["verdict"]["reason"]
    assert sum(row["probability_best"] for row in rows) == pytest.approx(1)
    assert "trial" not in JOB_KINDS


def test_what_needs_no_training_competes_with_what_was_trained(run):
    transforms = [{"kind": "identity"}, {"kind": "watermark"}]
    rows = run(input_transforms=transforms, finalists=1, trainer={"kind": "gradient", "epochs": 1}).result["cells"]
    measured = [row for row in rows if row["trained"] or row["verdict"]["label"] == "nothing_to_train"]
    assert len(measured) == 2
    assert rows[:2] == measured


def test_a_training_that_fails_leaves_its_prediction(run):
    class TrainingFails(SubJobs):
        def run(self, specs, context):
            ends = super().run(specs, context)
            failed = SubJobEnd("failed", error={"code": "training_diverged", "detail": "loss nan"})
            return {name: failed if name.endswith("trained") else end for name, end in ends.items()}

    rows = run(sub_jobs=TrainingFails(), finalists=1).result["cells"]
    (failed,) = [row for row in rows if row["error"]]
    assert (failed["trained"], failed["error"]["code"]) == (None, "training_diverged")
    assert failed["predicted"] is not None


def test_a_cell_that_cannot_be_is_reported_and_the_rest_runs(run):
    mappings = [{"kind": "frequent"}, {"kind": "text"}]
    transforms = [{"kind": "padding", "image_size": 4}, {"kind": "padding", "image_size": 400}]
    rows = run(backbones=["builtin/tiny", "bb_gone"], label_mappings=mappings, input_transforms=transforms).result[
        "cells"
    ]
    assert len(rows) == 8
    possible = [row for row in rows if row["error"] is None]
    assert rows[: len(possible)] == possible
    assert {row["label_mapping"]["kind"] for row in possible} >= {"frequent"}
    assert all(row["input_transform"]["image_size"] == 4 for row in possible)
    gone = [row for row in rows if row["backbone"] == "bb_gone"]
    assert {row["error"]["detail"] for row in gone} == {"there is no backbone bb_gone"}
    too_large = [row for row in rows if row["backbone"] != "bb_gone" and row["input_transform"]["image_size"] == 400]
    assert all("400" in row["error"]["detail"] for row in too_large)


def test_a_grid_without_any_cell_that_can_be_is_refused(run):
    with pytest.raises(SpecError, match="no cell of the grid can be: there is no backbone bb_gone"):
        run(backbones=["bb_gone"])


def test_a_diagnosis_that_fails_does_not_take_the_others_along(run):
    class OneFails(SubJobs):
        def run(self, specs, context):
            ends = super().run(dict(list(specs.items())[1:]), context)
            return {next(iter(specs)): SubJobEnd("failed", error={"code": "timeout", "detail": "late"}), **ends}

    rows = run(sub_jobs=OneFails()).result["cells"]
    assert [row["predicted"] is None for row in rows] == [False, False, False, True]
    assert rows[-1]["error"]["code"] == "timeout"


def test_the_grid_is_screened_once_however_often_the_job_waits(run, monkeypatch):
    class Waits(SubJobs):
        def run(self, specs, context):
            raise InterruptedError

    observer = Keeping()
    with pytest.raises(InterruptedError):
        run(observer=observer, sub_jobs=Waits())
    monkeypatch.setattr("mr_core.jobs.rank.screening._of_backbone", lambda *_: pytest.fail("screened again"))
    assert len(run(observer=observer).result["cells"]) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbones": ["a"] * 50, "input_transforms": [{"kind": "watermark"}] * 5}, "500 cells, expected at most 200"),
        ({"backbones": []}, "at least 1 item"),
        ({"survivors": 0}, "greater than or equal to 1"),
        ({"label_mappings": [{"kind": "nonsense"}]}, "nonsense"),
    ],
)
def test_grids_that_are_refused(run, fields, message):
    with pytest.raises(ValidationError, match=message):
        run(**fields)


def test_fewer_samples_than_classes_are_refused(run, tmp_path):
    with pytest.raises(ValidationError):
        run(samples=2)


def _draws(*predicted, n=50, version=None):
    generator = np.random.default_rng(0)
    rows = [
        {"predicted": {"accuracy": share, "calibration": version}, "n_samples": n, "trained": None}
        for share in predicted
    ]
    return [accuracy_draws(row, generator) for row in rows]


def test_probability_of_being_best_is_that_of_the_posteriors():
    first, second = (beta(share * 50 + 0.5, (1 - share) * 50 + 0.5) for share in (0.8, 0.7))
    exact, _ = quad(lambda x: first.pdf(x) * second.cdf(x), 0, 1)
    shares = probability_of_being_best(_draws(0.8, 0.7))
    assert shares[0] == pytest.approx(exact, abs=0.015)
    assert sum(shares) == pytest.approx(1)
    assert np.allclose(probability_of_being_best(_draws(*[0.5] * 4, n=10)), 0.25, atol=0.02)


def test_a_calibrated_prediction_is_as_unsure_as_its_interval(coefficients):
    """Two of them differ by a normal variable of log odds; many samples make it no surer."""
    deviation = coefficients.half_width / norm.ppf(0.95)
    gap = logit((0.8 * 200 + 0.5) / 201) - logit((0.7 * 200 + 0.5) / 201)
    shares = probability_of_being_best(_draws(0.8, 0.7, n=100_000, version="test"))
    assert shares[0] == pytest.approx(norm.cdf(gap / (deviation * np.sqrt(2))), abs=0.015)
