"""Parquet as Hugging Face writes it, and as nobody should."""

import json
import struct
import subprocess
import sys
import textwrap
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mr_core.datasets.archive import check_archive, inspect_archive
from mr_core.datasets.dataset import open_dataset
from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.validate import pack_archive
from mr_core.errors import (
    ArchiveBomb,
    ArchiveError,
    ArchiveTooLarge,
    DatasetError,
    NotAnArchive,
    OneClass,
    UnknownLayout,
)

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LABELS = [0, 1, 0, 1, 0, 1]


@pytest.fixture
def images(png):
    return [png(seed) for seed in range(6)]


@pytest.fixture
def save(tmp_path):
    """Writes columns to a parquet file; `names` are the class names of Hugging Face's features."""

    def write(columns, name="data.parquet", *, names=None, **options):
        table = pa.table(columns)
        if names is not None:
            feature = {"names": names, "_type": "ClassLabel"}
            info = {"info": {"features": {"image": {"_type": "Image"}, "label": feature}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        pq.write_table(table, tmp_path / name, **options)
        return tmp_path / name

    return write


def structs(images):
    return pa.array([None if image is None else {"bytes": image, "path": "a.png"} for image in images], IMAGE)


def test_hugging_face_columns_with_class_names(save, images, tmp_path):
    path = save(
        {"image": structs(images), "label": pa.array(LABELS), "other": pa.array([[1]] * 6)}, names=["cat", "dog"]
    )
    check_archive(path)
    listing = inspect_archive(path)
    assert (listing.format, listing.layout, listing.is_carved) == ("parquet", "table", True)
    assert listing.classes == ("cat", "dog")
    dataset = open_dataset(path, scratch=tmp_path)
    assert dataset.n("train") + dataset.n("test") == 6
    assert "train/cat/rows-0.png" in (*dataset.names("train"), *dataset.names("test"))


@pytest.mark.parametrize("group", [1, 4, 100])
def test_every_image_comes_back_as_it_was(save, images, noise, tmp_path, group):
    split = ["train"] * 4 + ["test"] * 2
    path = save({"image": images, "label": LABELS, "split": split}, row_group_size=group)
    dataset = open_dataset(path, scratch=tmp_path)
    for name, index in {"train/1/rows-3.png": 3, "test/0/rows-4.png": 4}.items():
        names = dataset.names(name.partition("/")[0])
        read = dataset.read(name.partition("/")[0], names.index(name))
        assert (np.asarray(read) == np.asarray(noise(index))).all()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pa.array(["cat", "dog"] * 3), ("cat", "dog")),
        (pa.array(["cat", "dog"] * 3).dictionary_encode(), ("cat", "dog")),
        (pa.array(["cat", "dog"] * 3, pa.large_string()), ("cat", "dog")),
        (pa.array(LABELS, pa.int8()), ("0", "1")),
        (pa.array(LABELS, pa.uint64()), ("0", "1")),
        (pa.array(LABELS, pa.float64()), ("0", "1")),
        (pa.array([False, True] * 3), ("0", "1")),
        (pa.array([7, 8] * 3).dictionary_encode(), ("7", "8")),
    ],
)
def test_labels_of_every_accepted_type(save, images, labels, classes):
    path = save({"image": images, "label": labels})
    check_archive(path)
    assert inspect_archive(path).classes == classes


def test_shards_in_a_zip_give_the_split_by_their_names(save, write_zip, images, tmp_path):
    def shard(seed):
        return save(
            {"image": structs(images[seed:] + images[:seed]), "label": LABELS}, names=["cat", "dog"]
        ).read_bytes()

    files = {
        "data/train-00000-of-00002.parquet": shard(0),
        "data/train-00001-of-00002.parquet": shard(1),
        "data/test-00000-of-00001.parquet": shard(2),
        "README.md": b"x",
        ".gitattributes": b"x",
    }
    path = write_zip(files)
    check_archive(path)
    listing = inspect_archive(path)
    assert (listing.format, listing.splits, listing.is_carved) == ("parquet", {"train": 12, "test": 6}, False)
    assert set(listing.ignored) == {"README.md", ".gitattributes"}
    report = pack_archive(path, tmp_path / "packed.zip")
    assert (report.status, report.splits) == ("ready", {"train": 12, "test": 6})
    assert report.leakage.n_images == 6
    assert "data/test-00000-of-00001[0]" in report.leakage.images
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.parquet", "data.zip", "packed.zip"]


def test_shards_in_folders_of_splits(save, write_zip, images):
    shard = save({"image": images, "label": LABELS}).read_bytes()
    listing = inspect_archive(write_zip({"default/train/0000.parquet": shard, "default/test/0000.parquet": shard}))
    assert listing.splits == {"train": 6, "test": 6}


@pytest.mark.parametrize(
    ("name", "message"),
    [("data/validation-0.parquet", "looks like validation data"), ("a.png", "beside parquet files there are 'a.png'")],
)
def test_refuses_what_a_zip_has_beside_tables(save, write_zip, images, name, message):
    shard = save({"image": images, "label": LABELS}).read_bytes()
    for look in (check_archive, inspect_archive):
        with pytest.raises(UnknownLayout, match=message):
            look(write_zip({"train.parquet": shard, name: shard}))


def test_refuses_shards_of_different_labels(save, write_zip, images):
    one = save({"image": images, "label": LABELS}, names=["a", "b"]).read_bytes()
    for other in (
        save({"image": images, "label": LABELS}, names=["b", "a"]).read_bytes(),
        save({"image": images, "label": ["a", "b"] * 3}).read_bytes(),
    ):
        with pytest.raises(UnknownLayout, match="differ in the type of their labels, or in their class names"):
            check_archive(write_zip({"train-0.parquet": one, "train-1.parquet": other}))


def test_refuses_parquet_in_a_tar(save, write_tar, images):
    with pytest.raises(UnknownLayout, match="in a tar are not read; expected them in a zip"):
        check_archive(write_tar({"a.parquet": save({"image": images, "label": LABELS}).read_bytes()}))


def test_names_each_row_that_cannot_be_used(save, png, tmp_path):
    images = [png(seed) for seed in range(12)]
    images[2], images[5] = b"", images[5][:40]
    rows = [{"bytes": image, "path": None} for image in images]
    rows[3], rows[4] = None, {"bytes": None, "path": "elsewhere.png"}
    labels = [float(n % 2) for n in range(12)]
    labels[0], labels[1], labels[6] = np.nan, None, np.inf
    report = pack_archive(save({"image": pa.array(rows, IMAGE), "label": labels}), tmp_path / "pack.zip")
    assert report.status == "ready"
    reasons = {bad.name: bad.reason for bad in report.corrupt}
    assert "rows[5]" in reasons
    assert reasons.pop("rows[5]")
    assert reasons == {
        "rows[0]": "row 0 has the label NaN",
        "rows[1]": "row 1 has no label",
        "rows[2]": "the file is empty",
        "rows[3]": "row 3 has no image",
        "rows[4]": "row 4 has an image without bytes; a file that its path names is not looked for",
        "rows[6]": "row 6 has an infinite label",
    }
    assert report.splits["train"] + report.splits["test"] == 5


def test_the_label_of_none_is_no_class(save, png, tmp_path):
    labels = [0, 1, 0, 1, 0, 1, -1]
    path = save({"image": [png(seed) for seed in range(7)], "label": labels}, names=["cat", "dog"])
    report = pack_archive(path, tmp_path / "pack.zip")
    assert [(bad.name, bad.reason) for bad in report.corrupt] == [
        ("rows[6]", "row 6 has the label -1, which stands for none")
    ]


@pytest.mark.parametrize(
    ("labels", "names", "error", "message"),
    [
        (pa.array([None] * 6, pa.int64()), None, UnknownLayout, "no row has a label: row 0 has no label"),
        ([float("nan")] * 6, None, UnknownLayout, "no row has a label: row 0 has the label NaN"),
        ([0.0, 1.0, 0.5, 1.0, 0.0, 1.0], None, UnknownLayout, "row 2 has the label 0.5; expected whole numbers"),
        ([0, 1, 2, 0, 1, 0], ["cat", "dog"], UnknownLayout, "row 2 has the label 2; the names go from 0 to 1"),
        (["a", "b", "../c", "a", "b", "a"], None, UnknownLayout, r"row 2 has the label '../c'"),
        (["a", "b", "A", "a", "b", "a"], None, UnknownLayout, "differ only in case"),
        (["a", "b" * 70000] * 3, None, ArchiveTooLarge, "has a label or split of 70000 bytes"),
        (["a"] * 6, None, OneClass, "a single class"),
    ],
)
def test_an_unusable_label_column_is_refused_in_words(save, images, labels, names, error, message):
    path = save({"image": images, "label": labels}, names=names)
    check_archive(path)
    with pytest.raises(error, match=message):
        inspect_archive(path)


def test_a_split_is_train_or_test(save, images):
    split = ["train", "test", None, "TRAIN", "train", "dev"]
    with pytest.raises(UnknownLayout, match="row 5 has the split 'dev'; expected 'train' or 'test'"):
        inspect_archive(save({"image": images, "label": LABELS, "split": split}))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"img": [b"x"], "label": [1]}, "has the columns 'img', 'label'; expected the columns image"),
        ({"image": [b"x"]}, "has the columns 'image'; expected"),
        ({"image": ["a.png"], "label": [[1, 2]]}, "the column label is nested"),
        ({"image": [[b"x"]], "label": [1]}, "the column image holds no bytes"),
        ({"image": [{"bytes": {"bytes": b"x"}}], "label": [1]}, "the column image holds no bytes"),
        ({"image": [{"path": "a.png"}], "label": [1]}, "the column image holds no bytes"),
        ({"image": [1], "label": [1]}, "the column image holds no bytes"),
        ({"image": [b"x"], "label": [{"a": 1}]}, "the column label is nested"),
        ({"image": [b"x"], "label": [None]}, "the column label is nested or of another type"),
        ({"image": [b"x"], "label": [b"cat"]}, "the column label is nested or of another type"),
        ({"image": [b"x"], "label": pa.array([1], pa.timestamp("us"))}, "the column label is nested or of another"),
        ({"image": [b"x"], "label": pa.array([1], pa.date32())}, "the column label is nested or of another type"),
        ({"image": [b"x"], "label": pa.array([1], pa.decimal128(5, 2))}, "the column label is nested or of another"),
        ({"image": [b"x"], "label": [1], "split": [3]}, "the column split is not text"),
    ],
)
def test_refuses_columns_of_other_forms_by_the_footer_alone(save, columns, message):
    with pytest.raises(UnknownLayout, match=message):
        check_archive(save(columns))


def test_refuses_columns_that_come_twice(save, images, tmp_path):
    table = pa.Table.from_arrays([pa.array(images), pa.array(LABELS), pa.array(LABELS)], ["image", "label", "label"])
    pq.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(UnknownLayout, match="has the columns 'label' twice"):
        check_archive(tmp_path / "twice.parquet")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ArchiveLimits(entries=5), "6 rows, the limit is 5"),
        (ArchiveLimits(columns=2), "more than 2 columns"),
        (ArchiveLimits(row_group_bytes=100), "row group 0 holds .* bytes of images, the limit is 100: write smaller"),
        (ArchiveLimits(footer_bytes=100), "the parquet footer has .* bytes, the limit is 100"),
        (ArchiveLimits(unpacked_bytes=100), "unpacked the images have .* bytes, the limit is 100"),
    ],
)
def test_limits_are_kept_by_the_footer_alone(save, images, limits, message):
    path = save({"image": structs(images), "label": LABELS})
    with pytest.raises(ArchiveTooLarge, match=message):
        check_archive(path, limits)


def test_a_row_over_the_limit_of_one_file_is_left_out(save, images, tmp_path):
    limits = ArchiveLimits(entry_bytes=max(map(len, images)))
    path = save({"image": [*images, images[0] + bytes(100)], "label": [*LABELS, 0]})
    report = pack_archive(path, tmp_path / "pack.zip", limits=limits)
    assert [bad.name for bad in report.corrupt] == ["rows[6]"]


# --- files that lie


def rewritten(path, change):
    """The file with `change` of its bytes, its length and the place of its footer."""
    data = bytearray(path.read_bytes())
    (n_footer,) = struct.unpack("<I", data[-8:-4])
    path.write_bytes(bytes(change(data, len(data) - 8 - n_footer)))
    return path


@pytest.mark.parametrize("n_bytes", [4, 8, 11, 100, -1, -4, -8])
def test_refuses_a_truncated_file(save, images, n_bytes):
    path = save({"image": images, "label": LABELS})
    path.write_bytes(path.read_bytes()[:n_bytes])
    for look in (check_archive, inspect_archive):
        with pytest.raises(ArchiveError, match=r"truncated|damaged|announces"):
            look(path)


@pytest.mark.parametrize("length", [2**32 - 1, 10**6, 2**24])
def test_refuses_a_footer_longer_than_the_file(save, images, length):
    path = save({"image": images, "label": LABELS})
    path = rewritten(path, lambda data, _: data[:-8] + struct.pack("<I", length) + b"PAR1")
    with pytest.raises(ArchiveError, match=f"announces a footer of {length}"):
        check_archive(path)


@pytest.mark.parametrize("length", [0, 1, 17])
def test_refuses_a_footer_shorter_than_it_is(save, images, length):
    path = save({"image": images, "label": LABELS})
    path = rewritten(path, lambda data, _: data[:-8] + struct.pack("<I", length) + b"PAR1")
    with pytest.raises(ArchiveError):
        check_archive(path)


def test_refuses_an_encrypted_file(save, images):
    path = save({"image": images, "label": LABELS})
    with pytest.raises(NotAnArchive, match="encrypted"):
        check_archive(rewritten(path, lambda data, _: data[:-4] + b"PARE"))


def test_refuses_a_bomb_by_what_its_footer_declares(save, png):
    blank = bytes(600 << 10)
    rows = [blank + bytes([n]) for n in range(200)]
    path = save({"image": rows, "label": [0, 1] * 100}, compression="zstd", row_group_size=100, use_dictionary=False)
    assert path.stat().st_size < 2**20
    with pytest.raises(ArchiveBomb, match="inflate to"):
        check_archive(path)


def test_refuses_one_large_image_in_every_row_while_it_inflates(save, png, tmp_path):
    """A dictionary keeps it once, so the footer declares little."""
    image = png(0, size=(200, 200))
    path = save({"image": [image] * 100, "label": [0, 1] * 50})
    assert path.stat().st_size < 2 * len(image)
    limits = ArchiveLimits(inflation_ratio=10)
    check_archive(path, limits)
    report = pack_archive(path, tmp_path / "pack.zip", limits=limits)
    assert (report.status, report.error.code) == ("invalid", "archive_bomb")
    assert not (tmp_path / "pack.zip").exists()


def _deep_schema(depth):
    """A footer whose schema is one column in so many groups, in thrift's compact protocol."""
    group = bytes([0x48, 1]) + b"g" + bytes([0x15, 2, 0])  # 4: name, 5: one child
    leaf = bytes([0x15, 12, 0x38, 1]) + b"x" + bytes([0])  # 1: type, 4: name
    count = depth + 1
    size, varint = count, b""
    while size > 127:
        varint, size = varint + bytes([size & 127 | 128]), size >> 7
    elements = bytes([0xFC]) + varint + bytes([size]) + group * depth + leaf
    return bytes([0x15, 2, 0x19]) + elements + bytes([0x16, 0, 0x19, 0x0C, 0])


@pytest.mark.parametrize("depth", [17, 100_000])
def test_refuses_a_schema_nested_without_end(tmp_path, depth):
    footer = _deep_schema(depth)
    path = tmp_path / "deep.parquet"
    path.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")
    with pytest.raises(ArchiveTooLarge, match="nested deeper than 16"):
        check_archive(path)


def test_refuses_structs_nested_without_end(tmp_path):
    footer = bytes([0x1C]) * 100_000
    path = tmp_path / "deep.parquet"
    path.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")
    with pytest.raises(ArchiveError, match="damaged"):
        check_archive(path)


def test_any_bytes_give_an_answer_or_a_clear_error(save, images, tmp_path):
    """Good files with a few bytes of the footer changed, and others with a few of the pages."""
    path = save({"image": structs(images), "label": LABELS, "split": ["train"] * 6}, names=["cat", "dog"])
    original = path.read_bytes()
    (n_footer,) = struct.unpack("<I", original[-8:-4])
    generator = np.random.default_rng(0)
    for first, last in ((len(original) - 8 - n_footer, len(original) - 8), (4, len(original) - 8 - n_footer)):
        for _ in range(150):
            data = bytearray(original)
            for at in generator.integers(first, last, 3):
                data[at] = generator.integers(0, 256)
            path.write_bytes(bytes(data))
            with suppress(DatasetError):
                check_archive(path)
                pack_archive(path, tmp_path / "pack.zip")


def test_a_page_that_inflates_beyond_memory_makes_it_invalid(save, tmp_path):
    """In a process under the bounds of the validation job; the footer declares little."""
    rows = [bytes(64 << 20) + bytes([n]) for n in range(4)]
    path = save({"image": rows, "label": [0, 1, 0, 1]}, use_dictionary=False, write_statistics=False)
    program = f"""
        from pathlib import Path
        from mr_core.datasets.limits import ArchiveLimits
        from mr_core.datasets.resources import limit_resources
        from mr_core.datasets.validate import pack_archive
        limits = ArchiveLimits(inflation_floor_bytes=2**40, row_group_bytes=2**40, entry_bytes=2**40)
        limit_resources(address_space_bytes=600 * 2**20)
        report = pack_archive(Path({str(path)!r}), Path({str(tmp_path / "pack.zip")!r}), limits=limits)
        print(report.status, report.error.code)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["invalid", "archive_bomb"], done.stderr


def test_packs_a_good_file_under_the_bounds_of_the_validation_job(save, images, tmp_path):
    path = save({"image": structs(images), "label": LABELS})
    program = f"""
        from pathlib import Path
        from mr_core.datasets.resources import limit_resources
        from mr_core.datasets.validate import pack_archive
        limit_resources(address_space_bytes=2**30)
        print(pack_archive(Path({str(path)!r}), Path({str(tmp_path / "pack.zip")!r})).status)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["ready"], done.stderr


def test_the_check_of_the_gateway_reads_no_page(save, images):
    """pyarrow is not even imported."""
    path = save({"image": structs(images), "label": LABELS})
    program = f"""
        import sys
        from pathlib import Path
        from mr_core.datasets.archive import check_archive
        check_archive(Path({str(path)!r}))
        print("pyarrow" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
