"""What an uploaded dataset may hold at most."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ArchiveLimits:
    """Caps on an archive and on the images in it; sizes are in bytes, before or after inflating as named."""

    entries: int = 200_000
    entry_bytes: int = 128 * 2**20  # one file, inflated; the arrays of an npz are capped by `unpacked_bytes` alone
    unpacked_bytes: int = 8 * 2**30  # all files, inflated
    inflation_ratio: int = 100  # inflated over stored, for one file and for the whole archive
    inflation_floor_bytes: int = 2**20  # below this an inflation ratio says nothing: a blank file is no bomb
    name_bytes: int = 1024
    footer_bytes: int = 8 * 2**20  # of a parquet file
    columns: int = 256  # of a parquet file, nested ones counted one by one
    row_group_bytes: int = 512 * 2**20  # images of one row group of a parquet file, inflated
    classes: int = 10_000
    image_pixels: int = 40_000_000
    image_side: int = 32_768
    reduced_side: int = 512  # images with a longer shorter side are reduced to this one


DEFAULT_LIMITS = ArchiveLimits()
