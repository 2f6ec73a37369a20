"""What an uploaded archive holds, told from its names, directory and sizes: no image is decoded here."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from mr_core.datasets.arrays import ArrayReader, has_arrays
from mr_core.datasets.images import describe_bytes
from mr_core.datasets.layout import Arrangement, Layout, Sample, arrange_folders, count_by_class, finish
from mr_core.datasets.limits import DEFAULT_LIMITS, ArchiveLimits
from mr_core.datasets.members import (
    ACCEPTED_ARCHIVES,
    ArchiveReader,
    Member,
    is_archive,
    is_system_path,
    is_text,
    named,
)
from mr_core.datasets.metadata import METADATA_BYTES, arrange_by_metadata, explain_columns, is_table
from mr_core.datasets.pack import SPLITS, Split
from mr_core.datasets.parquet import ParquetReader
from mr_core.datasets.parquet_tables import has_tables, read_tables
from mr_core.datasets.tar_reader import TarReader
from mr_core.datasets.zip_reader import ZipReader
from mr_core.errors import ArchiveTooLarge, NotAnArchive, UnknownLayout, UnreadableImage, UnsafeArchive

ArchiveFormat = Literal["zip", "tar", "tar.gz", "npz", "parquet"]
Container = Literal["zip", "tar", "tar.gz", "parquet"]


@dataclass(frozen=True)
class ArchiveListing:
    """An accepted archive: every image that is to be decoded, and what was left out.

    `unlabelled` are rows of tables without a label, each with the reason. `is_carved` says that the test split was
    taken from the training images, as there was none.
    """

    format: ArchiveFormat
    layout: Layout
    samples: tuple[Sample, ...]
    ignored: tuple[str, ...]
    unpacked_bytes: int
    is_carved: bool
    unlabelled: tuple[tuple[str, str], ...] = ()

    @cached_property
    def counts(self) -> dict[str, dict[Split, int]]:
        """Images of each class by split."""
        return count_by_class(self.samples)

    @property
    def n_found(self) -> int:
        """Images and rows, whether of use or not."""
        return len(self.samples) + len(self.unlabelled)

    @property
    def classes(self) -> tuple[str, ...]:
        """Sorted class names; a label is a position among them."""
        return tuple(self.counts)

    @property
    def splits(self) -> dict[Split, int]:
        """Images by split."""
        return {split: sum(splits[split] for splits in self.counts.values()) for split in SPLITS}


def check_archive(path: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
    """Refuse what names, directory and sizes show to be wrong, as `inspect_archive` does.

    Of parquet the footers are read and nothing is decoded: its labels may still turn out to be of no use.
    """
    container = archive_format_of(path)
    if container == "parquet":
        read_tables(path, None, (), limits)
        return
    if container == "zip":
        archive = ZipReader(path, limits)
        members = list(archive.members())
        if has_tables(members):
            read_tables(path, archive, members, limits)
            return
    inspect_archive(path, limits)


def inspect_archive(
    path: Path, limits: ArchiveLimits = DEFAULT_LIMITS, *, scratch: Path | None = None
) -> ArchiveListing:
    """List a zip, tar, tar.gz, npz or parquet; a tar.gz is inflated once on the way, counted and thrown away.

    Of parquet in a zip one file at a time is unpacked into `scratch`, or where temporary files go.

    ArchiveError where the archive is refused (NotAnArchive, UnsafeArchive, ArchiveBomb, ArchiveTooLarge,
    UnknownLayout), DatasetError where its classes cannot be trained on (OneClass, EmptyClass, ClassTooSmall).
    """
    archive_format = archive_format_of(path)
    if archive_format == "parquet":
        return _listing("parquet", ParquetReader(path, limits).arrangement(), path.stat().st_size, limits)
    reader = ZipReader(path, limits) if archive_format == "zip" else TarReader(path, limits)
    members = list(reader.members())
    if isinstance(reader, ZipReader) and has_arrays(members):
        arrays = ArrayReader(reader, members, limits)
        return _listing("npz", arrays.arrangement(), sum(member.n_bytes for member in members), limits)
    if isinstance(reader, ZipReader) and has_tables(members):
        tables = ParquetReader(path, limits, archive=reader, members=members, scratch=scratch).arrangement()
        return _listing("parquet", tables, sum(member.n_bytes for member in members), limits, tables.ignored)
    return _inspect_folders(reader, members, archive_format, limits)


def archive_format_of(path: Path) -> Container:
    """The container by its first bytes, whatever the file is called; NotAnArchive saying what they look like."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise NotAnArchive(f"the file is empty; expected {ACCEPTED_ARCHIVES}")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"PAR1"):
        return "parquet"
    raise NotAnArchive(f"the file looks like {describe_bytes(head)}; expected {ACCEPTED_ARCHIVES}")


def _inspect_folders(
    reader: ArchiveReader, members: Sequence[Member], archive_format: ArchiveFormat, limits: ArchiveLimits
) -> ArchiveListing:
    kept = [member for member in members if not is_system_path(member.parts)]
    files = [member for member in kept if not member.is_folder]
    folders = [member.parts for member in kept if member.is_folder]
    if has_tables(files):
        raise UnknownLayout("parquet files in a tar are not read; expected them in a zip, or one alone")
    _check_files(files, limits)
    tables = _tables(reader, [member for member in files if is_table(member)])
    candidates = [member for member in files if not is_text(member)]
    ignored = [member.name for member in members if not member.is_folder and is_system_path(member.parts)]
    ignored += [member.name for member in files if is_text(member) and member.parts not in tables]
    if not candidates:
        raise UnknownLayout(f"no image among {len(members)} entries; expected {ACCEPTED_ARCHIVES}")
    arrangement = arrange_by_metadata(candidates, tables, limits) if tables else None
    if arrangement is None:
        try:
            arrangement = arrange_folders(candidates, folders)
        except UnknownLayout as error:
            if not tables:
                raise
            raise UnknownLayout(f"{error.detail}. {explain_columns(tables)}") from error
        ignored += ["/".join(path) for path in tables]
    ignored += arrangement.ignored
    unpacked_bytes = sum(member.n_bytes for member in members)
    return _listing(archive_format, arrangement, unpacked_bytes, limits, ignored)


def _listing(
    archive_format: ArchiveFormat,
    arrangement: Arrangement,
    unpacked_bytes: int,
    limits: ArchiveLimits,
    ignored: Sequence[str] = (),
) -> ArchiveListing:
    finished, is_carved = finish(arrangement)
    listing = ArchiveListing(
        format=archive_format,
        layout=finished.layout,
        samples=finished.samples,
        ignored=tuple(ignored),
        unpacked_bytes=unpacked_bytes,
        is_carved=is_carved,
        unlabelled=finished.unlabelled,
    )
    if len(listing.classes) > limits.classes:
        raise ArchiveTooLarge(f"{len(listing.classes)} classes, the limit is {limits.classes}")
    return listing


def _check_files(files: Sequence[Member], limits: ArchiveLimits) -> None:
    nested = [member.name for member in files if is_archive(member)]
    if nested:
        raise UnsafeArchive(f"archives within the archive: {named(nested)}; expected images alone")
    for member in files:
        if member.n_bytes > limits.entry_bytes:
            raise ArchiveTooLarge(f"{member.name!r} has {member.n_bytes} bytes, the limit is {limits.entry_bytes}")
        if is_table(member) and member.n_bytes > METADATA_BYTES:
            raise ArchiveTooLarge(f"{member.name!r} has {member.n_bytes} bytes, the limit is {METADATA_BYTES}")


def _tables(reader: ArchiveReader, members: Sequence[Member]) -> dict[tuple[str, ...], bytes]:
    """Contents of the metadata files by path."""
    if not members:
        return {}
    parts = {member.name: member.parts for member in members}
    tables = {}
    for name, data in reader.contents(parts):
        if isinstance(data, UnreadableImage):
            raise UnknownLayout(f"{name!r} cannot be read: {data.detail}")
        tables[parts[name]] = data
    return tables
