"""A ranking end to end, on coloured squares, a random source model of two convolutions and one that cannot be."""

import json

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.integrate import quad
from scipy.stats import beta

from mr_core.datasets.dataset import open_dataset
from mr_core.errors import BackboneError, SpecError
from mr_core.job_spec import JobSpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.rank.run import probability_of_being_best
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

    def load(backbone_id):
        if backbone_id != "builtin/tiny":
            raise BackboneError(f"there is no backbone {backbone_id}", param="backbone")
        return tiny_backbone

    def rank(*, observer=None, sub_jobs=None, **fields):
        context = JobContext(
            dataset=dataset, load_backbone=load, scratch=tmp_path, observer=observer or Observer(),
            sub_jobs=sub_jobs or SubJobs(),
        )  # fmt: skip
        return JobSpec.parse({"kind": "rank", "dataset": "squares", "samples": 24, **GRID, **fields}).run(context)

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


def test_only_the_most_promising_cells_get_a_kernel(run):
    rows = run(survivors=1).result["cells"]
    diagnosed, others = rows[0], rows[1:]
    assert diagnosed["probability_best"] == 1
    assert all(row["predicted"] is None and row["probability_best"] is None for row in others)
    untrained = [row["scores"]["untrained_accuracy"] for row in rows]
    assert untrained == sorted(untrained, reverse=True)


def test_a_cell_with_nothing_to_train_stands_by_what_it_reaches(run):
    rows = run(input_transforms=[{"kind": "identity"}]).result["cells"]
    (alone,) = [row for row in rows if row["label_mapping"]["kind"] == "frequent"]
    assert alone["predicted"]["accuracy"] == alone["scores"]["untrained_accuracy"]
    low, high = alone["predicted"]["accuracy_interval"]
    assert low <= alone["predicted"]["accuracy"] <= high
    assert (alone["verdict"]["label"], alone["n_samples"], alone["error"]) == ("nothing_to_train", 24, None)
    assert sum(row["probability_best"] for row in rows) == pytest.approx(1)


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


def test_probability_of_being_best_is_that_of_the_posteriors():
    cells = [(0.8, 50), (0.7, 50)]
    first, second = (beta(share * n + 0.5, (1 - share) * n + 0.5) for share, n in cells)
    exact, _ = quad(lambda x: first.pdf(x) * second.cdf(x), 0, 1)
    shares = probability_of_being_best(cells, seed=0)
    assert shares[0] == pytest.approx(exact, abs=0.015)
    assert sum(shares) == pytest.approx(1)
    assert np.allclose(probability_of_being_best([(0.5, 10)] * 4, seed=1), 0.25, atol=0.02)
