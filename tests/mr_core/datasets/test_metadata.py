import json

import pytest

from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.members import Member
from mr_core.datasets.metadata import arrange_by_metadata, explain_columns, is_table
from mr_core.errors import UnknownLayout, UnsafeArchive

LIMITS = ArchiveLimits()


def files(*paths):
    return [Member(path, tuple(path.split("/")), 1, is_folder=False) for path in paths]


def arrange(text, *paths, table="metadata.csv"):
    data = text if isinstance(text, bytes) else text.encode()
    return arrange_by_metadata(files(*paths), {tuple(table.split("/")): data}, LIMITS)


def triples(arrangement):
    return sorted((sample.source, sample.split, sample.class_name) for sample in arrangement.samples)


def test_csv_beside_the_images():
    arrangement = arrange("file_name,label,caption\n1.png,cat,x\n2.png,dog,y\n", "1.png", "2.png", "3.png")
    assert triples(arrangement) == [("1.png", "train", "cat"), ("2.png", "train", "dog")]
    assert arrangement.ignored == ("3.png",)


def test_csv_with_a_byte_order_mark_and_windows_lines():
    assert triples(arrange("\ufefffile_name,label\r\n1.png,cat\r\n", "1.png")) == [("1.png", "train", "cat")]


def test_jsonl_with_numbers_for_labels():
    lines = "\n".join(json.dumps({"file_name": f"{i}.png", "label": i}) for i in range(2)) + "\n"
    arrangement = arrange(lines, "0.png", "1.png", table="metadata.jsonl")
    assert [class_name for *_, class_name in triples(arrangement)] == ["0", "1"]


def test_split_by_path_and_by_column():
    by_path = arrange("file_name,label\ntrain/1.png,a\ntest/2.png,a\n", "train/1.png", "test/2.png")
    by_column = arrange("file_name,label,split\n1.png,a,train\n2.png,a,test\n", "1.png", "2.png")
    assert [split for _, split, _ in triples(by_path)] == ["test", "train"]
    assert [split for _, split, _ in triples(by_column)] == ["train", "test"]


def test_a_table_in_each_split_folder():
    tables = {(split, "metadata.csv"): b"file_name,label\n1.png,a\n" for split in ("train", "test")}
    arrangement = arrange_by_metadata(files("train/1.png", "test/1.png"), tables, LIMITS)
    assert triples(arrangement) == [("test/1.png", "test", "a"), ("train/1.png", "train", "a")]


def test_a_table_of_something_else_is_not_used():
    assert arrange("id,weight\n1,2\n", "1.png") is None
    assert "has 'id', 'weight'" in explain_columns({("metadata.csv",): b"id,weight\n1,2\n"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,label\n9.png,a\n", r"row 1 of metadata.csv names '9.png', which is not in the archive"),
        ("file_name,label\n1.png,a\n1.png,b\n", "row 2 .* a second time"),
        ("file_name,label\n1.png,\n", "label ''"),
        ("file_name,label\n1.png\n", "label None"),
        ("file_name,label\n,a\n", "no file_name"),
        ("file_name,label\n1.png,a/b\n", "has no '/'"),
        ("file_name,label\n1.png,..\n", "does not begin with"),
        ("file_name,label\n1.png,a\\b\n", "backslash"),
        ("file_name,label\n1.png,Cat\n2.png,cat\n", "differ only in case"),
        ("file_name,label,split\n1.png,a,validation\n", "split 'validation'"),
        (b"file_name,label\n\xff\xfe.png,a\n", "cannot be read"),
        ("file_name,label\n1.png," + "x" * 200_000, "cannot be read: field larger"),
    ],
)
def test_refuses_a_row_that_does_not_fit(text, message):
    with pytest.raises(UnknownLayout, match=message):
        arrange(text, "1.png", "2.png")


@pytest.mark.parametrize("name", ["../1.png", "/1.png", "a/../../1.png"])
def test_refuses_file_names_that_lead_elsewhere(name):
    with pytest.raises(UnsafeArchive, match="leads elsewhere"):
        arrange(f"file_name,label\n{name},a\n", "1.png")


@pytest.mark.parametrize("line", ["[1, 2]", "{", "[" * 100_000])
def test_refuses_lines_that_are_no_objects(line):
    with pytest.raises(UnknownLayout):
        arrange(line, "1.png", table="metadata.jsonl")


def test_knows_its_tables():
    assert [is_table(member) for member in files("a/metadata.csv", "Metadata.JSONL", "metadata.txt")] == [
        True,
        True,
        False,
    ]
