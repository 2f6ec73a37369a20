"""Outputs computed once: shared between jobs, and trained on where the input transform has nothing to train."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mr_core import JobSpec
from mr_core.backbones.loading import load_backbone
from mr_core.datasets.dataset import ImageDataset, open_dataset
from mr_core.features import FeatureCache
from mr_core.jobs.context import JobContext
from mr_core.observer import Observer
from mr_core.trainers.gradient import trainer as trainer_module
from tests.mr_core.jobs.digits import write_digits

HEAD_ONLY = {
    "kind": "reprogram",
    "dataset": "d",
    "input_transform": {"kind": "identity"},
    "label_mapping": {"kind": "linear"},
    "trainer": {"kind": "gradient", "epochs": 3, "batch_size": 16},
}


class Remembering(FeatureCache):
    def __init__(self) -> None:
        self.kept: dict[str, Mapping[str, np.ndarray]] = {}
        self.hits = 0

    def load(self, key):
        self.hits += key in self.kept
        return self.kept.get(key)

    def save(self, key, arrays):
        self.kept[key] = {name: array.copy() for name, array in arrays.items()}


class Messages(Observer):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text, *, level="info"):
        self.texts.append(text)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> ImageDataset:
    folder = tmp_path_factory.mktemp("digits")
    return open_dataset(write_digits(folder / "digits.zip", (0, 1, 7), n_train=12, n_test=5), scratch=folder)


def _run(digits: ImageDataset, folder: Path, features: FeatureCache, **changes):
    folder.mkdir(exist_ok=True)
    observer = Messages()
    context = JobContext(
        dataset=digits,
        load_backbone=lambda name: load_backbone(name, random_seed=0),
        scratch=folder,
        observer=observer,
        features=features,
    )
    return JobSpec.parse(HEAD_ONLY | changes).run(context), observer.texts


def test_the_second_job_reads_what_the_first_computed(digits, tmp_path):
    features = Remembering()
    first, texts = _run(digits, tmp_path / "1", features)
    assert not any("earlier job" in text for text in texts)
    second, texts = _run(digits, tmp_path / "2", features)
    assert sum("earlier job" in text for text in texts) == 2  # the train and the test split
    assert first.adapter == second.adapter
    other, texts = _run(digits, tmp_path / "3", features, seed=1, evaluation={"validation_fraction": 0.4})
    assert sum("earlier job" in text for text in texts) == 2  # another division of the same split
    assert other.adapter != first.adapter


def test_another_dataset_backbone_or_engine_is_another_key(digits, tmp_path):
    features = Remembering()
    _run(digits, tmp_path / "1", features)
    assert len(features.kept) == 2
    other = copy.copy(digits)
    other.sha256 = "f" * 64
    _run(other, tmp_path / "2", features)
    assert len(features.kept) == 4
    _run(digits, tmp_path / "3", features, backbone="random:builtin/mini-clip")
    assert len(features.kept) == 4  # statistics of a random backbone are the job's own: nothing is kept
    assert features.hits == 0


def test_a_head_trained_on_features_is_the_head_trained_on_images(digits, tmp_path, monkeypatch):
    on_features, _ = _run(digits, tmp_path / "1", FeatureCache())
    monkeypatch.setattr(
        "mr_core.jobs.reprogram.run.IdentitySpec", trainer_module.GradientTrainer
    )  # never the transform
    on_images, _ = _run(digits, tmp_path / "2", FeatureCache())
    found, expected = (json.loads(outcome.adapter.config)["metrics"]["test"] for outcome in (on_features, on_images))
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert found["accuracy"] == expected["accuracy"]
