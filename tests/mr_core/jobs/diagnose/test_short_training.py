"""The short training of a diagnosis: what it learns, what it refuses to learn from, what it leaves alone."""

import numpy as np
import pytest
import torch

from mr_core.datasets.dataset import open_dataset
from mr_core.errors import TrainingDiverged
from mr_core.job_spec import JobSpec
from mr_core.jobs.context import JobContext
from mr_core.jobs.diagnose.short_training import short_training_accuracy
from mr_core.jobs.diagnose.subject import load_subject, outputs_through
from tests.mr_core.jobs.diagnose.test_run import COLOURS, archive


@pytest.fixture
def short_training(tmp_path, tiny_backbone):
    """The accuracy on coloured squares; `relabel` changes the labels of the sample, `duplicate_of` names repeats."""

    def accuracy(*, relabel=lambda labels: labels, duplicate_of=None, **fields):
        dataset = open_dataset(archive(tmp_path / "squares.zip", per_class=12, colours=COLOURS), scratch=tmp_path)
        context = JobContext(dataset=dataset, load_backbone=lambda _: tiny_backbone, scratch=tmp_path)
        spec = {"kind": "diagnose", "dataset": "squares", "input_transform": {"kind": "padding", "image_size": 4}}
        spec = JobSpec.parse(spec | {"samples": 36} | fields)
        subject = load_subject(spec, context)
        subject.sample.labels[:] = relabel(subject.sample.labels)
        through = outputs_through(subject.model, subject.model.input_transform, subject.sample, context)
        outputs = through[subject.model.label_mapping.reads]
        subject.fit_mapping(outputs)
        before = [tensor.clone() for tensor in subject.model.state_dict().values()]
        found = short_training_accuracy(
            spec, subject, outputs, np.arange(36) if duplicate_of is None else duplicate_of, context
        )
        assert all(map(torch.equal, before, subject.model.state_dict().values()))
        return found

    return accuracy


@pytest.mark.parametrize("transform", [{"kind": "padding", "image_size": 4}, {"kind": "identity"}])
def test_it_learns_colours_and_leaves_the_model_alone(short_training, transform):
    assert short_training(input_transform=transform, label_mapping={"kind": "linear", "start": "probe"}) > 0.9


def test_labels_that_tell_nothing_are_not_learned(short_training):
    shuffled = np.random.default_rng(0).permutation
    accuracies = [
        short_training(relabel=shuffled, label_mapping={"kind": "linear"}, input_transform={"kind": "identity"})
        for _ in range(3)
    ]
    assert np.mean(accuracies) < 0.55  # chance is 1 / 3


def test_repeats_of_an_image_are_never_on_both_sides(short_training):
    """Each image beside a repeat with another label: only who has seen the repeat could be sure to be wrong."""
    pairs = np.arange(36) // 2 * 2
    parity = np.arange(36) % 2
    fields = {"label_mapping": {"kind": "linear"}, "input_transform": {"kind": "identity"}}
    first = short_training(relabel=lambda _: parity, duplicate_of=pairs, **fields)
    assert short_training(relabel=lambda _: parity, duplicate_of=pairs, **fields) == first
    assert short_training(duplicate_of=np.zeros(36, dtype=np.int64), **fields) is None


def test_a_descent_that_diverges_says_nothing(short_training, monkeypatch):
    def diverge(*_):
        raise TrainingDiverged(3, float("nan"))

    monkeypatch.setattr("mr_core.trainers.gradient.trainer.GradientTrainer.train", diverge)
    assert short_training() is None
