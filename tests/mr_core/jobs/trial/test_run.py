"""A trial against the reprogramming that it stands for, on coloured squares."""

import numpy as np
import pytest
import torch

from mr_core.datasets.dataset import open_dataset
from mr_core.errors import SpecError
from mr_core.job_spec import JobSpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.trial.run import hits, hits_of
from mr_core.observer import Observer
from tests.mr_core.jobs.diagnose.test_run import archive


@pytest.fixture
def run(tmp_path, tiny_backbone, monkeypatch):
    monkeypatch.setattr("mr_core.jobs.reprogram.run.reprogram_artifacts", lambda **_: [])
    dataset = open_dataset(archive(tmp_path / "squares.zip"), scratch=tmp_path)

    def train(kind, **fields):
        context = JobContext(
            dataset=dataset, load_backbone=lambda _: tiny_backbone, scratch=tmp_path, observer=Observer()
        )
        spec = {
            "kind": kind, "dataset": "squares", "input_transform": {"kind": "padding", "image_size": 4},
            "trainer": {"kind": "gradient", "epochs": 3},
        }  # fmt: skip
        return JobSpec.parse(spec | fields).run(context)

    return train


@pytest.mark.parametrize(
    "fields",
    [{"label_mapping": {"kind": "iterative"}}, {"repeats": 2}, {"input_transform": {"kind": "identity"}},
     {"input_transform": {"kind": "padding", "image_size": "auto"}, "label_mapping": {"kind": "linear"}}],
)  # fmt: skip
def test_is_the_training_of_a_reprogramming(run, fields):
    alone, whole = run("trial", **fields), run("reprogram", **fields)
    expected = whole.result["metrics"]["validation"]
    assert alone.result["validation"]["accuracy"] == expected["accuracy"]
    assert alone.result["validation"]["loss"] == pytest.approx(expected["loss"])
    assert alone.result["validation"]["n"] == expected["n"]
    assert alone.result["training"]["kept_epoch"] == whole.result["training"]["kept_epoch"]
    assert alone.result["image_size"] == whole.result["image_size"]["chosen"]


def test_leaves_neither_adapter_nor_files_nor_anything_of_the_test_split(run):
    outcome = run("trial")
    assert (outcome.adapter, outcome.backbone, outcome.spectrum, outcome.file) == (None, None, None, None)
    assert not outcome.artifacts
    assert set(outcome.result) == {"validation", "training", "seeds", "image_size", "timing"}


def test_says_which_validation_images_it_got_right_from_each_seed(run):
    alone = run("trial").result
    right = hits_of(alone["validation"]["hits"], alone["validation"]["n"])
    assert right.mean() == alone["validation"]["accuracy"]
    assert alone["seeds"] is None
    several = run("trial", repeats=2).result
    assert [answer["seed"] for answer in several["seeds"]] == [0, 1]
    assert several["seeds"][0]["hits"] == alone["validation"]["hits"]
    assert several["validation"]["accuracy"] == max(answer["accuracy"] for answer in several["seeds"])


@pytest.mark.parametrize("n", [1, 8, 11])
def test_hits_are_bits_in_the_images_order(n):
    labels = np.arange(n) % 3
    predicted = np.where(np.arange(n) % 2, labels, labels + 1)
    assert hits_of(hits(torch.eye(4)[predicted], labels), n).tolist() == [float(i % 2) for i in range(n)]


def test_without_validation_images_there_is_nothing_to_judge_by(run):
    with pytest.raises(SpecError, match="judged on validation images"):
        run("trial", evaluation={"validation_fraction": 0}, trainer={"kind": "gradient", "selection": "last"})
