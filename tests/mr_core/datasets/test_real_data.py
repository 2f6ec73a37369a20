"""Real images, where they are at hand: `MR_TEST_DATA`, or the folder shared/data beside the repository."""

import os
from pathlib import Path

import numpy as np
import pytest

from mr_core.datasets.archive import inspect_archive
from mr_core.datasets.dataset import ImageDataset
from mr_core.datasets.validate import pack_archive
from mr_core.errors import UnknownLayout

DATA = Path(os.environ.get("MR_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")


def archive(name):
    path = DATA / "images" / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"{path} is absent; MR_TEST_DATA names the folder that has images/{name}.zip")
    return path


def test_mnist_is_packed_without_a_fault(tmp_path):
    report = pack_archive(archive("mnist"), tmp_path / "pack.zip")
    assert (report.status, report.splits, report.n_corrupt) == ("ready", {"train": 1500, "test": 500}, 0)
    assert report.classes == [str(digit) for digit in range(10)]
    assert report.images.modes == {"L": 2000}
    dataset = ImageDataset.open(tmp_path / "pack.zip")
    decoded = dataset.decode("test", size=28, fit="stretch", interpolation="bicubic", scratch=tmp_path)
    assert np.bincount(dataset.labels("test")).sum() == 500
    assert (decoded[0] == np.asarray(dataset.read("test", 0))).all()


def test_cifar10_is_listed():
    listing = inspect_archive(archive("cifar10"))
    assert listing.splits == {"train": 5000, "test": 1000}
    assert listing.classes[0] == "airplane"
    assert len(listing.classes) == 10


def test_a_test_split_alone_is_refused():
    with pytest.raises(UnknownLayout, match="no train folder"):
        inspect_archive(archive("imagenet1k_samples"))
