import pickle
import zipfile

import numpy as np
import pytest

from mr_core.datasets.archive import inspect_archive
from mr_core.datasets.dataset import open_dataset
from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.validate import pack_archive
from mr_core.errors import ArchiveError, ArchiveTooLarge, UnknownLayout, UnsafeArchive


def pixels(n=6, shape=(5, 4, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.fixture
def save(tmp_path):
    def write(name="data.npz", **arrays):
        np.savez_compressed(tmp_path / name, **arrays)
        return tmp_path / name

    return write


LABELS = np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 1), (5, 4)])
def test_uint8_images_come_back_as_they_were(save, tmp_path, shape):
    train, test = pixels(shape=shape), pixels(2, shape, seed=1)
    path = save(x_train=train, y_train=LABELS, x_test=test, y_test=LABELS[:2, None])
    dataset = open_dataset(path, scratch=tmp_path)
    assert dataset.classes == ("0", "1")
    read = {dataset.names("train")[i]: np.asarray(dataset.read("train", i)) for i in range(6)}
    assert (read["train/1/x_train-3.png"] == train[3].squeeze()).all()
    assert (np.asarray(dataset.read("test", 0)) == test[0].squeeze()).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8"])
@pytest.mark.parametrize("scale", [1, 255])
def test_float_images_of_both_ranges(save, tmp_path, dtype, scale):
    train = pixels()
    path = save(x_train=(train / (255 / scale)).astype(dtype), y_train=LABELS)
    dataset = open_dataset(path, scratch=tmp_path)
    index = dataset.names("train").index("train/0/x_train-0.png")
    assert np.abs(np.asarray(dataset.read("train", index)).astype(int) - train[0]).max() <= (dtype == "float16")


def test_strings_are_class_names(save):
    listing = inspect_archive(save(x_train=pixels(), y_train=np.array(["cat", "dog"] * 3)))
    assert listing.classes == ("cat", "dog")
    assert (listing.format, listing.layout, listing.is_carved) == ("npz", "arrays", True)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN"), (np.inf, "an infinite value")])
def test_names_the_row_that_is_not_finite(save, tmp_path, value, words):
    train = pixels().astype(np.float32)
    train[2, 0, 0, 0] = value
    path = save(x_train=train, y_train=LABELS, x_test=train[:2], y_test=LABELS[:2])
    report = pack_archive(path, tmp_path / "pack.zip")
    assert report.status == "ready"
    assert [(bad.name, bad.reason) for bad in report.corrupt] == [("x_train[2]", f"row 2 of x_train has {words}")]


def test_values_of_no_known_range_make_it_invalid(save, tmp_path):
    report = pack_archive(save(x_train=pixels() - 128.0, y_train=LABELS), tmp_path / "pack.zip")
    assert report.status == "invalid"
    assert report.error.detail.startswith("row 0 of x_train has values from -")
    assert not (tmp_path / "pack.zip").exists()


def test_refuses_objects_without_unpickling_them(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    assert b"unpickled" in pickle.dumps(Bomb())
    np.savez(tmp_path / "a.npz", x_train=np.array([Bomb()], dtype=object), y_train=LABELS)
    with pytest.raises(UnsafeArchive, match="x_train holds object"):
        inspect_archive(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x_train=pixels(), y_train=np.array([Bomb()] * 6, dtype=object))
    with pytest.raises(UnsafeArchive, match="y_train holds object"):
        inspect_archive(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": pixels()}, "has the arrays 'x_train'; expected x_train, y_train"),
        ({"images": pixels(), "labels": LABELS}, "has the arrays 'images', 'labels'"),
        ({"x_train": pixels(), "y_train": LABELS, "x_test": pixels()}, "expected x_train"),
        ({"x_train": pixels(), "y_train": LABELS[:5]}, "5 labels, x_train has 6 images"),
        ({"x_train": pixels(), "y_train": LABELS * 0.5}, "y_train is float64"),
        ({"x_train": pixels(), "y_train": np.eye(6, dtype=int)}, r"shape \(6, 6\)"),
        ({"x_train": pixels().astype(np.int64), "y_train": LABELS}, "x_train is int64; expected uint8 or float"),
        ({"x_train": pixels(shape=(3, 5, 4)), "y_train": LABELS}, "with c 1 or 3"),
        ({"x_train": pixels(shape=(5,)), "y_train": LABELS}, r"shape \(6, 5\)"),
        ({"x_train": np.asfortranarray(pixels()), "y_train": LABELS}, "Fortran order"),
        ({"x_train": pixels(), "y_train": np.array(["a/b", "c"] * 3)}, "no name for a class"),
    ],
)
def test_refuses_arrays_of_other_forms(save, arrays, message):
    with pytest.raises(UnknownLayout, match=message):
        inspect_archive(save(**arrays))


def test_a_header_that_declares_more_than_there_is_allocates_nothing(tmp_path, save):
    path = save(x_train=pixels(), y_train=LABELS)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    honest = files["y_train.npy"]
    files["y_train.npy"] = honest.replace(b"(6,), }" + b" " * 8, b"(600000000,), }")
    assert len(files["y_train.npy"]) == len(honest)
    assert files["y_train.npy"] != honest
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    with pytest.raises(ArchiveError, match=r"y_train declares int64 \(600000000,\)"):
        inspect_archive(path)


def test_limits_the_number_of_images(save):
    with pytest.raises(ArchiveTooLarge, match="6 images, the limit is 5"):
        inspect_archive(save(x_train=pixels(), y_train=LABELS), ArchiveLimits(entries=5))
