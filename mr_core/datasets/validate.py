"""Decodes a whole archive, one image at a time, into a pack and a report."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from mr_core.datasets.archive import ArchiveListing, archive_format_of, inspect_archive
from mr_core.datasets.arrays import ArrayReader
from mr_core.datasets.findings import Findings
from mr_core.datasets.images import DecodedImage, decode_image, normalise_image
from mr_core.datasets.layout import Sample
from mr_core.datasets.limits import DEFAULT_LIMITS, ArchiveLimits
from mr_core.datasets.members import ArchiveReader
from mr_core.datasets.pack import write_pack
from mr_core.datasets.parquet import ParquetReader
from mr_core.datasets.report import DatasetReport
from mr_core.datasets.tar_reader import TarReader
from mr_core.datasets.zip_reader import ZipReader
from mr_core.errors import DatasetError, JobCancelled, UnreadableImage


def pack_archive(
    source: Path,
    destination: Path,
    *,
    limits: ArchiveLimits = DEFAULT_LIMITS,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DatasetReport:
    """Check every image of an archive and write the usable ones to `destination`, a pack, losslessly.

    `destination` exists afterwards only where the report's status is `ready`. Memory holds one image, and
    some hundred bytes for each name. `on_progress(done, total)` and `should_stop()` are called after every
    image; JobCancelled where the latter says so. ArchiveError or DatasetError, as `inspect_archive`, where the
    archive itself is refused; what shows while it is inflated and decoded makes the report `invalid` instead.
    """
    listing = inspect_archive(source, limits, scratch=destination.parent)
    findings = Findings(listing, limits)
    for name, reason in listing.unlabelled:
        findings.add_corrupt(name, reason)
    names = _pack_names(listing.samples)
    samples = {sample.source: sample for sample in listing.samples}
    failure: DatasetError | None = None
    with write_pack(destination) as pack:
        try:
            for done, (name, decoded) in enumerate(_images(source, listing, limits, destination.parent), start=1):
                sample = samples[name]
                if isinstance(decoded, UnreadableImage):
                    findings.add_corrupt(name, decoded.detail)
                else:
                    findings.add_image(sample, decoded)
                    pack.add(decoded.image, split=sample.split, class_name=sample.class_name, name=names[name])
                if on_progress is not None:
                    on_progress(done, len(samples))
                if should_stop is not None and should_stop():
                    raise JobCancelled(f"stopped after {done} of {len(samples)} images")
        except DatasetError as error:
            failure = error
        report = findings.report(failure)
        if report.status == "invalid":
            pack.discard()
    return report


def _images(
    source: Path, listing: ArchiveListing, limits: ArchiveLimits, scratch: Path
) -> Iterator[tuple[str, DecodedImage | UnreadableImage]]:
    """Every sample once, in the archive's order."""
    names = [sample.source for sample in listing.samples]
    if listing.format == "npz":
        arrays = ZipReader(source, limits)
        for name, row in ArrayReader(arrays, list(arrays.members()), limits).images():
            yield name, normalise_image(row, limits) if isinstance(row, Image.Image) else row
        return
    reader: ArchiveReader | ParquetReader
    if listing.format == "parquet":
        archive = ZipReader(source, limits) if archive_format_of(source) == "zip" else None
        members = list(archive.members()) if archive is not None else ()
        reader = ParquetReader(source, limits, archive=archive, members=members, scratch=scratch)
    else:
        reader = ZipReader(source, limits) if listing.format == "zip" else TarReader(source, limits)
    for name, data in reader.contents(names):
        yield name, _decoded(data, limits)


def _decoded(data: bytes | UnreadableImage, limits: ArchiveLimits) -> DecodedImage | UnreadableImage:
    if isinstance(data, UnreadableImage):
        return data
    try:
        return decode_image(data, limits)
    except UnreadableImage as error:
        return error


def _pack_names(samples: Sequence[Sample]) -> dict[str, str]:
    """A name in the pack for each name in the archive: its stem, numbered where another of its class has it."""
    taken: set[tuple[str, str, str]] = set()
    numbers: dict[tuple[str, str, str], int] = {}  # the last one given: many of one name must not search from 1
    names: dict[str, str] = {}
    for sample in samples:
        stem = PurePosixPath(sample.source).stem.replace("[", "-").replace("]", "") or "image"
        base = (sample.split, sample.class_name, stem.casefold())
        number = numbers.get(base, 0) + 1
        while (key := (*base[:2], _numbered(base[2], number))) in taken:
            number += 1
        taken.add(key)
        numbers[base] = number
        name = _numbered(stem, number)
        names[sample.source] = f"{name}.png"
    return names


def _numbered(stem: str, number: int) -> str:
    return stem if number == 1 else f"{stem}-{number}"
