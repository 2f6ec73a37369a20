"""The parquet files of an upload, judged by their footers: which columns hold images and labels, and of what type."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.members import Member, is_system_path, is_text, named
from mr_core.datasets.pack import SPLITS, Split
from mr_core.datasets.parquet_footer import (
    BOOLEAN,
    BYTE_ARRAY,
    DOUBLE,
    FLOAT,
    INT32,
    INT64,
    MAGIC,
    Column,
    Footer,
    footer_of,
    parse_footer,
)
from mr_core.datasets.zip_reader import ZipReader
from mr_core.errors import ArchiveBomb, ArchiveError, ArchiveTooLarge, UnknownLayout

PARQUET_SUFFIX = ".parquet"

_EXPECTED = "the columns image (bytes, or a struct with bytes) and label (whole numbers or text)"
_TEXT_BYTES = 64 * 2**20  # of the labels of a row group, inflated; the splits likewise
_OTHER_SPLITS = frozenset({"validation", "valid", "val", "dev", "eval"})
_UTF8, _INTEGERS = 0, range(11, 19)  # converted types, of older writers
_STRING, _INTEGER = 1, 10  # logical types


@dataclass(frozen=True)
class Table:
    """One parquet file: its name in the zip (empty where it came alone), and what its footer says of the columns.

    `image` is the dotted path of the column with the bytes; `class_names` are Hugging Face's, if it has any.
    """

    name: str
    split: Split
    footer: Footer
    image: str
    class_names: tuple[str, ...] | None
    has_text_labels: bool
    has_splits: bool

    @property
    def labels(self) -> list[str]:
        """The columns that say class and split."""
        return ["label", "split"] if self.has_splits else ["label"]

    @property
    def texts(self) -> list[str]:
        """Those of them that are text."""
        return [name for name in self.labels if name == "split" or self.has_text_labels]

    def source(self, row: int) -> str:
        """The name of a row's image; rows are counted from 0."""
        return f"{self.name.removesuffix(PARQUET_SUFFIX) or 'rows'}[{row}]"

    def where(self, row: int) -> str:
        """The row in a sentence."""
        return f"row {row} of {self.name}" if self.name else f"row {row}"


def has_tables(members: Sequence[Member]) -> bool:
    """Whether a zip is one of parquet files, whatever else there is."""
    return any(_is_table(member) for member in members)


def read_tables(
    path: Path, archive: ZipReader | None, members: Sequence[Member], limits: ArchiveLimits
) -> tuple[Table, ...]:
    """The tables of a lone file, or of a zip by name. UnknownLayout naming what was found where they do not fit."""
    if archive is None:
        tables = [_table("", (), footer_of(path, limits), limits)]
    else:
        tables = list(_unzipped(archive, members, limits))
    n_rows = sum(table.footer.n_rows for table in tables)
    if n_rows > limits.entries:
        raise ArchiveTooLarge(f"{n_rows} rows, the limit is {limits.entries}")
    if len({(table.class_names, table.has_text_labels) for table in tables}) > 1:
        raise UnknownLayout("the parquet files differ in the type of their labels, or in their class names")
    return tuple(tables)


def _unzipped(archive: ZipReader, members: Sequence[Member], limits: ArchiveLimits) -> Iterator[Table]:
    others = [m.name for m in members if not (m.is_folder or _is_table(m) or is_system_path(m.parts) or is_text(m))]
    if others:
        raise UnknownLayout(f"beside parquet files there are {named(others)}; expected parquet files alone")
    for member in sorted(filter(_is_table, members), key=lambda member: member.name):
        with archive.stream(member.name) as pieces:
            head, tail = _ends(pieces, limits.footer_bytes)
        try:
            yield _table(member.name, member.parts, parse_footer(head, tail, member.n_bytes, limits), limits)
        except ArchiveError as error:
            raise type(error)(f"{member.name!r}: {error.detail}") from error


def _ends(pieces: Iterator[bytes], n_tail: int) -> tuple[bytes, bytes]:
    """The first bytes of a stream, and its last."""
    head, tail = b"", bytearray()
    for piece in pieces:
        head = head or piece[: len(MAGIC)]
        tail += piece
        del tail[: -n_tail - 2 * len(MAGIC)]
    return head, bytes(tail)


def _table(name: str, parts: tuple[str, ...], footer: Footer, limits: ArchiveLimits) -> Table:
    repeated = [column for column, n in Counter(footer.names).items() if n > 1]
    if repeated:
        raise UnknownLayout(f"the parquet file has the columns {named(repeated)} twice")
    columns = {column.path: column for column in footer.columns}
    image = columns.get(("image", "bytes")) or columns.get(("image",))
    label, split = columns.get(("label",)), columns.get(("split",))
    if not {"image", "label"} <= set(footer.names):
        raise UnknownLayout(f"the parquet file has the columns {named(footer.names)}; expected {_EXPECTED}")
    if image is None or image.physical != BYTE_ARRAY or image.is_repeated:
        raise UnknownLayout("the column image holds no bytes; expected binary, or a struct with a binary field bytes")
    if label is None or not (_is_number(label) or _is_text(label)) or label.is_repeated:
        raise UnknownLayout("the column label is nested or of another type; expected whole numbers or text")
    if "split" in footer.names and (split is None or not _is_text(split) or split.is_repeated):
        raise UnknownLayout("the column split is not text; expected 'train' or 'test' in each row")
    _check_sizes(footer, image, [column for column in (label, split) if column is not None], limits)
    return Table(
        name=name,
        split=_split_of(parts),
        footer=footer,
        image=".".join(image.path),
        class_names=_class_names(footer, limits) if label.physical in (INT32, INT64) else None,
        has_text_labels=_is_text(label),
        has_splits=split is not None,
    )


def _check_sizes(footer: Footer, image: Column, texts: Sequence[Column], limits: ArchiveLimits) -> None:
    """What the columns that are read inflate to, as far as the footer tells."""
    n_bytes = 0
    for number, group in enumerate(footer.row_groups):
        n_image_bytes = group.column_bytes.get(image.path, 0)
        if n_image_bytes > limits.row_group_bytes:
            raise ArchiveTooLarge(
                f"row group {number} holds {n_image_bytes} bytes of images, the limit is {limits.row_group_bytes}: "
                "write smaller row groups"
            )
        for column in texts:
            if group.column_bytes.get(column.path, 0) > _TEXT_BYTES:
                raise ArchiveTooLarge(f"{column.path[0]} has over {_TEXT_BYTES} bytes in row group {number}")
        n_bytes += n_image_bytes
    if n_bytes > max(limits.inflation_floor_bytes, limits.inflation_ratio * footer.n_file_bytes):
        raise ArchiveBomb(
            f"{footer.n_file_bytes} bytes inflate to {n_bytes}, the limit is {limits.inflation_ratio} to 1"
        )
    if n_bytes > limits.unpacked_bytes:
        raise ArchiveTooLarge(f"unpacked the images have {n_bytes} bytes, the limit is {limits.unpacked_bytes}")


def _class_names(footer: Footer, limits: ArchiveLimits) -> tuple[str, ...] | None:
    """Names of whole-number labels, from the features that Hugging Face's writers put into the footer."""
    if "huggingface" not in footer.metadata:
        return None
    try:
        feature = json.loads(footer.metadata["huggingface"])["info"]["features"]["label"]
        names = feature["names"] if feature["_type"] == "ClassLabel" else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    if len(names) > limits.classes:
        raise ArchiveTooLarge(f"{len(names)} class names, the limit is {limits.classes}")
    return tuple(names)


def _split_of(parts: tuple[str, ...]) -> Split:
    """The split of a file by its name (`train-00000-of-00002.parquet`), or by its folder."""
    words = [word for part in reversed(parts) for word in re.split(r"[^a-z0-9]+", part.lower())]
    for word in words:
        if word in _OTHER_SPLITS:
            raise UnknownLayout(
                f"{'/'.join(parts)!r} looks like validation data; put it into train or test, or leave it out "
                "(validation data is taken from train by the job)"
            )
        if word in SPLITS:
            return "test" if word == "test" else "train"
    return "train"


def _is_table(member: Member) -> bool:
    return not member.is_folder and not is_system_path(member.parts) and member.suffix == PARQUET_SUFFIX


def _is_number(column: Column) -> bool:
    if column.physical in (INT32, INT64):
        return column.converted in (None, *_INTEGERS) and column.logical in (None, _INTEGER)
    return column.physical in (BOOLEAN, FLOAT, DOUBLE)  # a whole number that may be absent comes as a float from pandas


def _is_text(column: Column) -> bool:
    return column.physical == BYTE_ARRAY and (column.converted == _UTF8 or column.logical == _STRING)
