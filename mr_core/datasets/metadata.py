"""Hugging Face ImageFolder: a metadata.csv or metadata.jsonl that gives each file its label."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mr_core.datasets.layout import Arrangement, Sample
from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.members import Member, NameGuard, looks_like_image, named
from mr_core.datasets.pack import SPLITS, Split
from mr_core.errors import ArchiveError, UnknownLayout, UnsafeArchive

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
METADATA_BYTES = 32 * 2**20
_CLASS_NAME_BYTES = 200


def arrange_by_metadata(
    files: Sequence[Member], tables: Mapping[tuple[str, ...], bytes], limits: ArchiveLimits
) -> Arrangement | None:
    """Samples as the tables list them; None where no table has the columns `file_name` and `label`.

    A file's split is the `split` column, or else the first `train` or `test` among the folders of its path.
    `tables` holds the contents by path. UnknownLayout naming the row that does not fit.
    """
    by_path = {file.parts: file for file in files}
    labels = NameGuard(limits)
    samples: dict[tuple[str, ...], Sample] = {}
    for path, text in sorted(tables.items()):
        for row_number, row in enumerate(_rows(path, text), start=1):
            if "file_name" not in row or "label" not in row:
                if row_number == 1:
                    break  # a table of something else
                raise UnknownLayout(f"row {row_number} of {'/'.join(path)} lacks file_name or label")
            where = f"row {row_number} of {'/'.join(path)}"
            target = (*path[:-1], *_file_parts(row["file_name"], where))
            if target not in by_path:
                raise UnknownLayout(f"{where} names {row['file_name']!r}, which is not in the archive")
            if target in samples:
                raise UnknownLayout(f"{where} names {row['file_name']!r} a second time")
            class_name = class_name_of(row["label"], where, labels)
            samples[target] = Sample(by_path[target].name, split_of(row.get("split"), target, where), class_name)
    if not samples:
        return None
    unlisted = tuple(file.name for file in files if file.parts not in samples)
    return Arrangement("metadata", tuple(samples.values()), unlisted)


def explain_columns(tables: Mapping[tuple[str, ...], bytes]) -> str:
    """What the first row of each table has, for the message where no layout fits."""
    found = [f"{'/'.join(path)} has {named(next(_rows(path, text), {}))}" for path, text in tables.items()]
    return "; ".join(found) + "; expected the columns 'file_name' and 'label'"


def _rows(path: tuple[str, ...], data: bytes) -> Iterator[dict[str, Any]]:
    where = "/".join(path)
    try:
        text = data.decode("utf-8-sig")
        if path[-1].endswith(".csv"):
            yield from csv.DictReader(io.StringIO(text, newline=""))
            return
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise UnknownLayout(f"line {number} of {where} is not a JSON object")
                yield row
    except (UnicodeDecodeError, csv.Error, ValueError, RecursionError) as error:
        raise UnknownLayout(f"{where} cannot be read: {error}") from error


def _file_parts(file_name: Any, where: str) -> tuple[str, ...]:
    if not isinstance(file_name, str) or not file_name.strip():
        raise UnknownLayout(f"{where} has no file_name")
    parts = tuple(part for part in file_name.strip().split("/") if part not in ("", "."))
    if ".." in parts or file_name.startswith("/"):
        raise UnsafeArchive(f"{where} names {file_name!r}, a path that leads elsewhere")
    return parts


def class_name_of(label: Any, where: str, guard: NameGuard) -> str:
    """The label as a folder's name, which it becomes in the pack."""
    name = label.strip() if isinstance(label, str) else str(label) if type(label) in (int, bool) else ""
    if not name:
        raise UnknownLayout(f"{where} has the label {label!r}; expected a name or a whole number")
    if "/" in name or name.startswith(".") or len(name.encode("utf-8", "replace")) > _CLASS_NAME_BYTES:
        raise UnknownLayout(
            f"{where} has the label {name[:60]!r}; a class name has no '/', does not begin with '.', "
            f"and takes at most {_CLASS_NAME_BYTES} bytes"
        )
    try:
        guard.parts(name, is_folder=True)
    except ArchiveError as error:
        raise UnknownLayout(f"the label in {where} is refused: {error.detail}") from error
    return name


def split_of(column: Any, path: tuple[str, ...], where: str) -> Split:
    """What a split column says, or else the first `train` or `test` among the folders of the path."""
    if column is not None and str(column).strip():
        name = str(column).strip().lower()
        if name not in SPLITS:
            raise UnknownLayout(f"{where} has the split {column!r}; expected 'train' or 'test'")
    else:
        name = next((part.lower() for part in path[:-1] if part.lower() in SPLITS), "train")
    return "test" if name == "test" else "train"


def is_table(member: Member) -> bool:
    """A file that may give the labels."""
    return member.parts[-1].lower() in METADATA_NAMES and not looks_like_image(member)
