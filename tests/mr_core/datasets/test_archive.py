from contextlib import suppress

import numpy as np
import pytest

from mr_core.datasets.archive import archive_format_of, inspect_archive
from mr_core.datasets.limits import ArchiveLimits
from mr_core.errors import (
    ArchiveTooLarge,
    DatasetError,
    EmptyClass,
    NotAnArchive,
    OneClass,
    UnknownLayout,
    UnsafeArchive,
)


def test_lists_a_zip(write_zip, both):
    listing = inspect_archive(write_zip(both))
    assert (listing.format, listing.layout, listing.is_carved) == ("zip", "split_folders", False)
    assert listing.classes == ("cat", "dog")
    assert listing.splits == {"train": 6, "test": 4}
    assert listing.counts == {"cat": {"train": 3, "test": 2}, "dog": {"train": 3, "test": 2}}
    assert listing.unpacked_bytes == sum(map(len, both.values()))


@pytest.mark.parametrize(("mode", "name", "expected"), [("w", "a.bin", "tar"), ("w:gz", "a.zip", "tar.gz")])
def test_knows_a_tar_by_its_bytes_whatever_its_name(write_tar, both, mode, name, expected):
    listing = inspect_archive(write_tar(both, name, mode))
    assert (listing.format, listing.splits) == (expected, {"train": 6, "test": 4})


def test_a_tar_made_of_the_current_folder(write_tar, both):
    assert inspect_archive(write_tar({f"./{name}": data for name, data in both.items()})).splits["train"] == 6


def test_zip_and_tar_of_equal_files_are_carved_alike(write_zip, write_tar, tree):
    files = tree({"cat": 10, "dog": 10})
    backwards = dict(reversed(files.items()))
    assert inspect_archive(write_zip(files)).samples == inspect_archive(write_tar(backwards)).samples


def test_lists_what_it_ignores(write_zip, both):
    junk = {
        "__MACOSX/train/cat/._0.png": b"x",
        "train/.DS_Store": b"x",
        "train/cat/Thumbs.db": b"x",
        "README.md": b"x",
        "train/LICENSE": b"x",
    }
    listing = inspect_archive(write_zip(both | junk))
    assert set(listing.ignored) == set(junk)
    assert listing.splits["train"] == 6


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (lambda name: name.replace("/", "\\"), "has a backslash; expected / between folders"),
        (lambda name: "C:\\data\\" + name.replace("/", "\\"), "has a backslash"),
        (lambda name: f"C:/data/{name}", "is an absolute path"),
        (lambda name: f"\\\\server\\share\\{name}", "has a backslash"),
    ],
)
def test_paths_as_windows_has_them_are_refused_in_words(write_zip, write_tar, both, written, message):
    """Whoever packed them learns of it; a guess at the folders might mix up classes."""
    files = {written(name): data for name, data in both.items()}
    for path in (write_zip(files), write_tar(files)):
        with pytest.raises(UnsafeArchive, match=message):
            inspect_archive(path)


def test_what_a_mac_and_windows_leave_behind_is_no_image_nor_class(write_zip, write_tar, both):
    junk = {
        "__MACOSX/": b"",
        "__MACOSX/._train": b"x",
        "__MACOSX/train/cat/._0.png": b"\x00\x05\x16\x07",
        ".DS_Store": b"x",
        "train/cat/.DS_Store": b"x",
        "train/cat/Thumbs.db": b"x",
        "test/desktop.ini": b"x",
        "train/cat/._1.png": b"x",
    }
    for write in (write_zip, write_tar):
        files = both | {name: data for name, data in junk.items() if write is write_zip or not name.endswith("/")}
        listing = inspect_archive(write(files))
        assert (listing.classes, listing.splits) == (("cat", "dog"), {"train": 6, "test": 4})
        assert set(listing.ignored) == {name for name in junk if not name.endswith("/")}


def test_ignored_folders_do_not_hide_the_common_one(write_zip, tree):
    files = tree({"cat": 3, "dog": 3}, "my data/") | {"__MACOSX/my data/cat/._0.png": b"x", "README.txt": b"x"}
    assert inspect_archive(write_zip(files)).classes == ("cat", "dog")


def test_uses_metadata_over_folders(write_zip, png):
    table = "file_name,label\n" + "".join(f"img/{i}.png,{'ab'[i % 2]}\n" for i in range(6))
    files = {f"img/{i}.png": png(i) for i in range(6)} | {"metadata.csv": table.encode()}
    listing = inspect_archive(write_zip(files))
    assert (listing.layout, listing.classes, listing.ignored) == ("metadata", ("a", "b"), ())


def test_metadata_of_something_else_is_ignored_beside_class_folders(write_tar, tree):
    listing = inspect_archive(write_tar(tree({"cat": 3, "dog": 3}) | {"metadata.csv": b"id\n1\n"}))
    assert (listing.layout, listing.ignored) == ("class_folders", ("metadata.csv",))


def test_metadata_of_something_else_is_named_where_nothing_fits(write_zip, png):
    with pytest.raises(UnknownLayout, match=r"metadata.csv has 'id'; expected the columns 'file_name' and 'label'"):
        inspect_archive(write_zip({"1.png": png(), "metadata.csv": b"id\n1\n"}))


@pytest.mark.parametrize(
    ("data", "looks"),
    [
        (b"", "empty"),
        (b"<!doctype html><html>", "text"),
        (b"%PDF-1.4", "a PDF"),
        (b"Rar!\x1a\x07", "a rar archive"),
        (b"\xfd7zXZ\x00", "xz data"),
        (b"\x80\x04\x95", "a pickle"),
        (b"\x00\x01\x02\x03", "the bytes 00 01 02 03"),
    ],
)
def test_refuses_what_is_no_archive_saying_what_it_looks_like(tmp_path, data, looks):
    (tmp_path / "data.zip").write_bytes(data)
    with pytest.raises(NotAnArchive, match=f"{looks}.*expected a zip or tar.gz") as caught:
        inspect_archive(tmp_path / "data.zip")
    assert caught.value.code == "not_an_archive"


def test_refuses_an_image_that_is_an_archive_too(tmp_path, write_zip, both, encode, noise):
    (tmp_path / "polyglot.zip").write_bytes(encode(noise(), "GIF") + write_zip(both).read_bytes())
    with pytest.raises(NotAnArchive, match="a gif image"):
        archive_format_of(tmp_path / "polyglot.zip")


@pytest.mark.parametrize("name", ["train/cat/more.zip", "inner.tar.gz", "train/cat/x.7z", "a.npz"])
def test_refuses_archives_within(write_zip, both, name):
    with pytest.raises(UnsafeArchive, match="archives within the archive"):
        inspect_archive(write_zip(both | {name: b"PK"}))


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a\\..\\evil.png", "TRAIN/cat/0.png"])
def test_refuses_names_in_zip_and_tar(write_zip, write_tar, both, name):
    for write in (write_zip, write_tar):
        with pytest.raises(UnsafeArchive):
            inspect_archive(write(both | {name: b"x"}))


def test_refuses_an_archive_without_files(write_zip, write_tar):
    for path in (write_zip({}), write_zip({"cat/": b"", "README": b"x"}, "b.zip"), write_tar({})):
        with pytest.raises(UnknownLayout, match="no image"):
            inspect_archive(path)


def test_refuses_one_class(write_zip, tree):
    with pytest.raises(OneClass):
        inspect_archive(write_zip(tree({"cat": 5}, "data/")))


@pytest.mark.parametrize("extra", [{"train/bird/": b""}, {"train/bird/README.txt": b"none yet"}])
def test_refuses_an_empty_class(write_zip, both, extra):
    if "train/bird/README.txt" in extra:
        extra = {"train/bird/": b"", **extra}
    with pytest.raises(EmptyClass, match="train/bird"):
        inspect_archive(write_zip(both | extra))


def test_limits_a_file_and_the_classes(write_zip, both):
    path = write_zip(both)
    with pytest.raises(ArchiveTooLarge, match="the limit is 50"):
        inspect_archive(path, ArchiveLimits(entry_bytes=50))
    with pytest.raises(ArchiveTooLarge, match="2 classes, the limit is 1"):
        inspect_archive(path, ArchiveLimits(classes=1))


def test_an_empty_image_is_listed_not_refused(write_zip, both):
    assert inspect_archive(write_zip(both | {"train/cat/empty.png": b""})).splits["train"] == 7


def test_any_bytes_give_an_answer_or_a_clear_error(tmp_path, write_zip, write_tar, both):
    """Good archives with a few bytes changed: never anything but the errors that the service shows."""
    generator = np.random.default_rng(0)
    for path in (write_zip(both), write_tar(both), write_tar(both, "plain.tar", "w")):
        original = path.read_bytes()
        for _ in range(60):
            data = bytearray(original)
            for at in generator.integers(0, len(data), 3):
                data[at] = generator.integers(0, 256)
            (tmp_path / "changed").write_bytes(data[: generator.integers(len(data) // 2, len(data) + 1)])
            with suppress(DatasetError):
                inspect_archive(tmp_path / "changed")
