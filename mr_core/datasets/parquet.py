"""Datasets as parquet: Hugging Face's columns `image` and `label`, streamed a batch of rows at a time."""

import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mr_core.datasets.layout import Arrangement, Sample
from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.members import Member, NameGuard
from mr_core.datasets.metadata import class_name_of, split_of
from mr_core.datasets.parquet_tables import PARQUET_SUFFIX, Table, has_tables, read_tables
from mr_core.datasets.zip_reader import ZipReader
from mr_core.errors import ArchiveBomb, ArchiveError, ArchiveTooLarge, UnknownLayout, UnreadableImage

T = TypeVar("T")

_LABEL_BATCH = 4096  # rows
_LABEL_BYTES = 2**16  # of one label or split, before the rules for class names are asked
_BUFFER_BYTES = 2**20


class ParquetReader:
    """The rows of a parquet file, or of the parquet files of a zip, whose footers are checked at once.

    Of a zip one file at a time is unpacked, into `scratch` or where temporary files go. In memory are one page of
    each column that is read, which is at most the images of a row group, and one row.
    """

    def __init__(
        self,
        path: Path,
        limits: ArchiveLimits,
        *,
        archive: ZipReader | None = None,
        members: Sequence[Member] = (),
        scratch: Path | None = None,
    ) -> None:
        self._path = path
        self._limits = limits
        self._archive = archive
        self._scratch = scratch
        self._tables = read_tables(path, archive, members, limits)
        self._ignored = tuple(m.name for m in members if not m.is_folder and not has_tables([m]))

    def arrangement(self) -> Arrangement:
        """A sample for each row with a label; those without are told apart.

        Labels are whole numbers, read by Hugging Face's names where the file has them, or text. UnknownLayout naming
        the row whose label or split is neither absent nor of use.
        """
        guard = NameGuard(self._limits)
        samples: list[Sample] = []
        unlabelled: list[tuple[str, str]] = []
        for table in self._tables:
            classes: dict[Any, str] = {}
            rows = self._rows(table, table.labels, batch_rows=_LABEL_BATCH, convert=partial(_labels, table=table))
            for row, (label, split) in enumerate(rows):
                if (reason := _absence(label, table)) is not None:
                    unlabelled.append((table.source(row), f"{table.where(row)} has {reason}"))
                    continue
                if label not in classes:
                    classes[label] = class_name_of(_named(label, table, row), table.where(row), guard)
                chosen = split_of(split, (table.split, ""), table.where(row))
                samples.append(Sample(table.source(row), chosen, classes[label]))
        if unlabelled and not samples:
            raise UnknownLayout(f"no row has a label: {unlabelled[0][1]}; expected whole numbers or text")
        return Arrangement("table", tuple(samples), self._ignored, unlabelled=tuple(unlabelled))

    def contents(self, names: Collection[str]) -> Iterator[tuple[str, bytes | UnreadableImage]]:
        """The encoded image of each named row, in the files' order, or the error that says what it has instead."""
        wanted = frozenset(names)
        n_bytes = 0
        for table in self._tables:
            # One row a batch: a dictionary may repeat a large image in every row.
            images = self._rows(table, [table.image], batch_rows=1, convert=self._images)
            for row, (image, fault) in enumerate(images):
                n_bytes += len(image)
                self._check_inflated(n_bytes)
                if table.source(row) in wanted:
                    yield table.source(row), UnreadableImage(f"{table.where(row)} has {fault}") if fault else image

    def _images(self, columns: Sequence[Any]) -> Iterator[tuple[bytes, str | None]]:
        """Bytes, or what a row has in their place."""
        import pyarrow as pa

        is_struct = pa.types.is_struct(columns[0].type)
        for value in columns[0]:
            content = value["bytes"] if is_struct and value.is_valid else value
            if not value.is_valid:
                yield b"", "no image"
            elif not content.is_valid:
                yield b"", "an image without bytes; a file that its path names is not looked for"
            elif (n_bytes := len(content.as_buffer())) > self._limits.entry_bytes:
                yield b"", f"an image of {n_bytes} bytes, the limit is {self._limits.entry_bytes}"
            else:
                yield content.as_py(), None

    def _rows(
        self, table: Table, columns: Sequence[str], *, batch_rows: int, convert: Callable[[Sequence[Any]], Iterator[T]]
    ) -> Iterator[T]:
        """Rows of some columns; ArchiveError where they cannot be read or are not as many as declared."""
        import pyarrow as pa  # 0.4 s and 50 MB, which the gateway goes without: it reads footers alone
        import pyarrow.parquet as pq

        row = 0
        try:
            with (
                self._unpacked(table) as path,
                pq.ParquetFile(
                    path,
                    read_dictionary=table.texts,  # a long text is there once, however many rows have it
                    buffer_size=_BUFFER_BYTES,
                    pre_buffer=False,
                    page_checksum_verification=True,
                    arrow_extensions_enabled=False,
                ) as file,
            ):
                for batch in file.iter_batches(batch_rows, columns=columns, use_threads=False):
                    for converted in convert(batch.columns):
                        yield converted
                        row += 1
        except MemoryError as error:
            raise ArchiveBomb(f"{table.where(row)} takes more memory than is allowed") from error
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ArchiveError(f"{table.where(row)} cannot be read: {str(error)[:300]}") from error
        if row != table.footer.n_rows:
            raise ArchiveError(f"{table.name or 'the parquet file'} has {row} rows, not {table.footer.n_rows}")

    def _check_inflated(self, n_bytes: int) -> None:
        limits, n_stored = self._limits, self._path.stat().st_size
        if n_bytes > max(limits.inflation_floor_bytes, limits.inflation_ratio * n_stored):
            raise ArchiveBomb(f"{n_stored} bytes inflate to over {n_bytes}, the limit is {limits.inflation_ratio} to 1")
        if n_bytes > limits.unpacked_bytes:
            raise ArchiveTooLarge(f"unpacked the images have over {limits.unpacked_bytes} bytes, which is the limit")

    @contextmanager
    def _unpacked(self, table: Table) -> Iterator[Path]:
        if self._archive is None:
            yield self._path
            return
        with tempfile.NamedTemporaryFile(dir=self._scratch, suffix=PARQUET_SUFFIX) as copy:
            with self._archive.stream(table.name) as pieces:
                for piece in pieces:
                    copy.write(piece)
            copy.flush()
            yield Path(copy.name)


def _labels(columns: Sequence[Any], *, table: Table) -> Iterator[tuple[Any, Any]]:
    """Label and split of each row of a batch."""
    labels, *splits = [_values(column, table) for column in columns]
    return zip(labels, splits[0] if splits else [None] * len(labels), strict=True)


def _values(column: Any, table: Table) -> list[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, is_coded = column.type, pa.types.is_dictionary(column.type)
    values = column.dictionary if is_coded else column
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        n_bytes = pc.max(pc.binary_length(values)).as_py() or 0
        if n_bytes > _LABEL_BYTES:
            raise ArchiveTooLarge(f"{table.name or 'the parquet file'} has a label or split of {n_bytes} bytes")
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise UnknownLayout(f"a column of labels or splits is read as {kind}; expected whole numbers or text")
    plain: list[Any] = values.to_pylist()
    return [None if i is None else plain[i] for i in column.indices.to_pylist()] if is_coded else plain


def _absence(label: Any, table: Table) -> str | None:
    """What a row without a label has instead of one."""
    if label is None:
        return "no label"
    if isinstance(label, float) and not math.isfinite(label):
        return "the label NaN" if math.isnan(label) else "an infinite label"
    return "the label -1, which stands for none" if table.class_names is not None and label == -1 else None


def _named(label: str | float, table: Table, row: int) -> str | int:
    """The label as text or a whole number."""
    if isinstance(label, float):
        if not label.is_integer():
            raise UnknownLayout(f"{table.where(row)} has the label {label:g}; expected whole numbers or text")
        return int(label)
    if table.class_names is None or isinstance(label, str):
        return label if isinstance(label, str) else int(label)
    if not 0 <= label < len(table.class_names):
        raise UnknownLayout(
            f"{table.where(row)} has the label {label}; the names go from 0 to {len(table.class_names) - 1}"
        )
    return table.class_names[label]
