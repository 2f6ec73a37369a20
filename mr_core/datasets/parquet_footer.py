"""The footer of a parquet file, read without a parquet library: what columns there are, how large, and where.

The gateway decides by it alone; no page is touched, and none of it is believed before it is checked against the file.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mr_core.datasets.limits import ArchiveLimits
from mr_core.errors import ArchiveError, ArchiveTooLarge, NotAnArchive

MAGIC = b"PAR1"
_ENCRYPTED = b"PARE"
_MAX_VALUES = 1_000_000
_MAX_DEPTH = 16
_TRAILER = struct.Struct("<I4s")  # length of the footer, magic

BOOLEAN, INT32, INT64, FLOAT, DOUBLE, BYTE_ARRAY = 0, 1, 2, 4, 5, 6  # physical types
_REPEATED = 2


@dataclass(frozen=True)
class Column:
    """A leaf of the schema: its path, and the types that the format gives it (see parquet.thrift)."""

    path: tuple[str, ...]
    physical: int
    converted: int | None
    logical: int | None
    is_repeated: bool


@dataclass(frozen=True)
class RowGroup:
    """Rows that lie together, and the inflated bytes of each of their columns."""

    n_rows: int
    column_bytes: dict[tuple[str, ...], int]


@dataclass(frozen=True)
class Footer:
    """What a parquet file declares; `names` are those of its columns, nested ones once, with repeats."""

    names: tuple[str, ...]
    columns: tuple[Column, ...]
    row_groups: tuple[RowGroup, ...]
    metadata: dict[str, str]
    n_file_bytes: int

    @property
    def n_rows(self) -> int:
        return sum(group.n_rows for group in self.row_groups)


def footer_of(path: Path, limits: ArchiveLimits) -> Footer:
    """The footer of a file on disk; errors as `parse_footer`."""
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
        file.seek(max(0, n_bytes - limits.footer_bytes - _TRAILER.size))
        return parse_footer(head, file.read(), n_bytes, limits)


def parse_footer(head: bytes, tail: bytes, n_bytes: int, limits: ArchiveLimits) -> Footer:
    """The footer from the first bytes of a file of `n_bytes` and its last, `footer_bytes` of the limits and more.

    NotAnArchive where it is no parquet, ArchiveTooLarge over a limit, ArchiveError where it is truncated or damaged,
    or describes what is not there.
    """
    if not head.startswith(MAGIC) or tail.endswith(_ENCRYPTED):
        what = "encrypted parquet" if _ENCRYPTED in (head[:4], tail[-4:]) else "no parquet file"
        raise NotAnArchive(f"the file is {what}; expected one that begins and ends with PAR1")
    if n_bytes < len(MAGIC) + _TRAILER.size or not tail.endswith(MAGIC):
        raise ArchiveError(f"the parquet file is truncated: {n_bytes} bytes that do not end with PAR1")
    n_footer, _ = _TRAILER.unpack(tail[-_TRAILER.size :])
    if n_footer > n_bytes - len(MAGIC) - _TRAILER.size:
        raise ArchiveError(f"the parquet file has {n_bytes} bytes and announces a footer of {n_footer}")
    if n_footer > limits.footer_bytes:
        raise ArchiveTooLarge(f"the parquet footer has {n_footer} bytes, the limit is {limits.footer_bytes}")
    raw = _CompactReader(tail[-_TRAILER.size - n_footer : -_TRAILER.size]).read()
    try:
        names, columns = _schema(raw[2], limits)
        groups = [_row_group(group) for group in raw[4]]
        places = [place for group in raw[4] for chunk in group[1] for place in _places(chunk)]
        metadata = {entry[1].decode(): entry.get(2, b"").decode("utf-8", "replace") for entry in raw.get(5, [])}
        n_rows = int(raw[3])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ArchiveError(f"the parquet footer is damaged: {type(error).__name__} {error}") from error
    _check_places(places, n_bytes - n_footer - _TRAILER.size)
    footer = Footer(names, columns, tuple(groups), metadata, n_bytes)
    if any(group.n_rows < 0 for group in groups) or footer.n_rows != n_rows:
        raise ArchiveError(f"the parquet footer declares {n_rows} rows, its row groups {footer.n_rows}")
    return footer


def _schema(elements: list[dict[int, Any]], limits: ArchiveLimits) -> tuple[tuple[str, ...], tuple[Column, ...]]:
    """Names at the top, and the leaves: the schema is a tree written depth first, each node with its child count."""
    names: list[str] = []
    columns: list[Column] = []
    open_nodes = [[elements[0][5], (), False]]  # children still to come, path, whether repeated
    for element in elements[1:]:
        while open_nodes and open_nodes[-1][0] == 0:
            open_nodes.pop()
        node = open_nodes[-1]
        node[0] -= 1
        path = (*node[1], element[4].decode())
        is_repeated = bool(node[2]) or element.get(3) == _REPEATED
        if len(path) == 1:
            names.append(path[0])
        if element.get(5):
            open_nodes.append([element[5], path, is_repeated])
        else:
            logical = next(iter(element.get(10, {})), None)
            columns.append(Column(path, element[1], element.get(6), logical, is_repeated))
        if len(columns) > limits.columns:
            raise ArchiveTooLarge(f"the parquet file has more than {limits.columns} columns, nested ones included")
        if len(path) > _MAX_DEPTH:
            raise ArchiveTooLarge(f"the parquet schema is nested deeper than {_MAX_DEPTH}")
    if any(node[0] for node in open_nodes):
        raise ValueError("the schema ends within a group")
    return tuple(names), tuple(columns)


def _row_group(group: dict[int, Any]) -> RowGroup:
    column_bytes = {}
    for chunk in group[1]:
        column = chunk[3]
        column_bytes[tuple(part.decode() for part in column[3])] = int(column[6])
    if min(column_bytes.values(), default=0) < 0:
        raise ValueError("a column of negative size")
    return RowGroup(int(group[3]), column_bytes)


def _places(chunk: dict[int, Any]) -> list[tuple[int, int]]:
    """Begin and end of a column chunk; nothing for an empty one."""
    if chunk.get(1) or 8 in chunk or 9 in chunk:
        raise ArchiveError("a column of the parquet file is encrypted or in another file")
    column = chunk[3]
    begin = min(column[9], column.get(11) or column[9])  # the dictionary, if there is one, comes first
    return [(begin, begin + column[7])] if column[7] else []


def _check_places(places: list[tuple[int, int]], end_of_data: int) -> None:
    """Columns that share their bytes, or lie outside the file, are not what they seem."""
    end = len(MAGIC)
    for begin, stop in sorted(places):
        if begin < end or stop < begin or stop > end_of_data:
            raise ArchiveError(
                f"the parquet footer puts a column at bytes {begin} to {stop}, where there is none: "
                f"columns follow one another from byte {len(MAGIC)} to {end_of_data}"
            )
        end = stop


class _CompactReader:
    """Thrift's compact protocol: a struct as a dict by field number, strings as bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._n_values = 0

    def read(self) -> dict[int, Any]:
        """The struct that the bytes begin with; ArchiveError where they are none."""
        try:
            return self._struct(0)
        except (IndexError, ValueError, struct.error) as error:
            raise ArchiveError(f"the parquet footer is damaged near its byte {self._at}") from error

    def _struct(self, depth: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            delta, kind = header >> 4, header & 15
            number = number + delta if delta else self._zigzag()
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        self._n_values += 1
        if self._n_values > _MAX_VALUES:
            raise ArchiveTooLarge(f"the parquet footer holds more than {_MAX_VALUES} values: use larger row groups")
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deep")
        match kind:
            case 1 | 2:  # of a list; those of a struct have no byte of their own
                return self._byte() == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return struct.unpack("<d", self._bytes(8))[0]
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                return self._list(depth)
            case 12:
                return self._struct(depth)
            case _:
                raise ValueError(f"type {kind}")  # maps and UUIDs: the format has none

    def _list(self, depth: int) -> list[Any]:
        header = self._byte()
        n_items = header >> 4 if header >> 4 != 15 else self._varint()
        if n_items > len(self._data) - self._at:
            raise ValueError("a list longer than what follows")
        return [self._value(header & 15, depth + 1) for _ in range(n_items)]

    def _byte(self) -> int:
        byte = self._data[self._at]
        self._at += 1
        return byte

    def _bytes(self, n_bytes: int) -> bytes:
        if n_bytes > len(self._data) - self._at:
            raise ValueError("a string longer than what follows")
        self._at += n_bytes
        return self._data[self._at - n_bytes : self._at]

    def _varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError("a number of more than 64 bits")

    def _zigzag(self) -> int:
        number = self._varint()
        return number >> 1 ^ -(number & 1)
