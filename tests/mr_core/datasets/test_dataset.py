import gc
import hashlib
import pickle

import numpy as np
import pytest
import torch

from mr_core.datasets.dataset import ImageDataset, open_dataset
from mr_core.datasets.images import prepare_image
from mr_core.errors import ArchiveError, ClassTooSmall


@pytest.fixture
def dataset(write_zip, both, tmp_path):
    return open_dataset(write_zip(both), scratch=tmp_path / "scratch")


def decode(dataset, tmp_path, split="train", **changes):
    arguments = {"size": 12, "fit": "stretch", "interpolation": "bilinear", "scratch": tmp_path / "decoded"} | changes
    return dataset.decode(split, **arguments)


def test_says_what_it_holds(dataset):
    assert dataset.classes == ("cat", "dog")
    assert dataset.n_classes == 2
    assert (dataset.n("train"), dataset.n("test")) == (6, 4)
    assert dataset.labels("train").tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.labels("train").dtype == np.int64
    assert dataset.names("test") == ("test/cat/0.png", "test/cat/1.png", "test/dog/0.png", "test/dog/1.png")


def test_sha256_is_of_the_file_given(write_zip, both, dataset):
    expected = hashlib.sha256(write_zip(both).read_bytes()).hexdigest()
    assert dataset.sha256 == expected
    assert ImageDataset.open(dataset.pack, sha256=expected).sha256 == expected
    assert open_dataset(dataset.pack).sha256 == hashlib.sha256(dataset.pack.read_bytes()).hexdigest()


def test_finds_its_pack_again(write_zip, both, dataset, monkeypatch, tmp_path):
    monkeypatch.setattr("mr_core.datasets.dataset.pack_archive", lambda *_: pytest.fail("packed twice"))
    assert open_dataset(write_zip(both), scratch=tmp_path / "scratch").names("train") == dataset.names("train")


def test_a_temporary_pack_goes_with_the_dataset(write_zip, both):
    dataset = open_dataset(write_zip(both))
    folder = dataset.pack.parent
    assert dataset.read("train", 0).size == (8, 6)
    del dataset
    gc.collect()
    assert not folder.exists()


def test_open_refuses_what_is_not_packed(write_zip, both, tmp_path):
    with pytest.raises(ArchiveError, match="open_dataset takes any accepted archive"):
        ImageDataset.open(write_zip(both))
    with pytest.raises(ArchiveError, match="there is no file"):
        open_dataset(tmp_path / "absent.zip")


def test_an_unusable_archive_raises_the_error_of_its_report(write_zip, tree, tmp_path):
    files = tree({"cat": 3, "dog": 2}) | {"dog/0.png": b"damaged"}
    with pytest.raises(ClassTooSmall, match=r"'dog/0\.png'"):
        open_dataset(write_zip(files), scratch=tmp_path / "scratch")


def test_decodes_as_prepare_image_does(dataset, tmp_path):
    for fit in ("stretch", "crop"):
        decoded = decode(dataset, tmp_path, fit=fit)
        assert decoded.shape == (6, 3, 12, 12)
        assert decoded.dtype == np.uint8
        for i in range(6):
            image = dataset.read("train", i)
            assert (decoded[i] == prepare_image(image, size=12, fit=fit, interpolation="bilinear")).all()


def test_decodes_many_in_order(write_zip, tree, tmp_path):
    """More than one window of threads."""
    dataset = open_dataset(write_zip(tree({"a": 100, "b": 600})), scratch=tmp_path / "scratch")
    decoded = decode(dataset, tmp_path, size=6)
    for i in (0, 63, 64, 300, dataset.n("train") - 1):
        expected = prepare_image(dataset.read("train", i), size=6, fit="stretch", interpolation="bilinear")
        assert (decoded[i] == expected).all()


def test_decodes_chosen_indices_in_their_order(dataset, tmp_path):
    every = decode(dataset, tmp_path)
    assert (decode(dataset, tmp_path, indices=[4, 0, 4]) == every[[4, 0, 4]]).all()
    assert decode(dataset, tmp_path, indices=np.array([], dtype=np.int64)).shape == (0, 3, 12, 12)
    with pytest.raises(IndexError, match="the train split has 6"):
        decode(dataset, tmp_path, indices=[6])
    with pytest.raises(IndexError):
        decode(dataset, tmp_path, indices=[-1])


def test_decodes_once_for_equal_arguments(dataset, tmp_path):
    first = decode(dataset, tmp_path)
    dataset.pack.unlink()
    assert (decode(dataset, tmp_path) == first).all()
    with pytest.raises(FileNotFoundError):
        decode(dataset, tmp_path, size=13)


def test_writing_to_the_map_changes_nothing_on_disk(dataset, tmp_path):
    first = decode(dataset, tmp_path)
    tensor = torch.from_numpy(first)  # warns of an array that cannot be written to
    tensor.fill_(7)
    assert not (decode(dataset, tmp_path) == 7).all()


def test_what_progress_raises_ends_it_and_leaves_nothing(dataset, tmp_path):
    seen = []

    def stop(done, total):
        seen.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(dataset, tmp_path, on_progress=stop)
    assert seen == [(6, 6)]
    assert list((tmp_path / "decoded").iterdir()) == []


def test_travels_to_another_process(dataset):
    assert pickle.loads(pickle.dumps(dataset)).names("train") == dataset.names("train")
