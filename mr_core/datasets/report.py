"""What was found in an uploaded dataset, as `GET /v1/datasets/{id}/report` answers it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from mr_core.datasets.layout import Layout
from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.pack import Split
from mr_core.errors import DatasetError

LISTED = 100  # names a list shows at most; totals count all


class ReportPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetFault(ReportPart):
    """Why the dataset cannot be used: a code of mr_core.errors and a sentence."""

    code: str
    detail: str


class BadFile(ReportPart):
    """A file left out, by its name in the archive, and the reason."""

    name: str
    reason: str


class SideStatistics(ReportPart):
    """Of widths or of heights, in pixels, as uploaded and upright."""

    min: int
    median: float
    max: int


class ImageStatistics(ReportPart):
    """Sizes and modes of the usable images as uploaded (`RGB`, `L`, `P`, `RGBA`, `I;16`, ...)."""

    width: SideStatistics
    height: SideStatistics
    modes: dict[str, int]


class DuplicateReport(ReportPart):
    """Training images of equal pixels: `groups` of names, the first of `n_groups`."""

    n_groups: int
    n_images: int
    n_groups_of_several_classes: int
    groups: list[list[str]]


class LeakReport(ReportPart):
    """Test images whose pixels are in the training split too; `n_images` of them, the first named."""

    n_images: int
    images: list[str]


class DatasetReport(ReportPart):
    """The outcome of `pack_archive`. Counts are of usable images; lists of names are cut at 100, totals are not."""

    status: Literal["ready", "invalid"]
    error: DatasetFault | None
    format: str
    layout: Layout
    classes: list[str]
    splits: dict[Split, int]
    counts: dict[str, dict[Split, int]]
    is_test_carved: bool
    images: ImageStatistics | None
    n_corrupt: int
    corrupt: list[BadFile]
    n_ignored: int
    ignored: list[str]
    n_reduced: int
    duplicates: DuplicateReport
    leakage: LeakReport
    warnings: list[str]
    limits: ArchiveLimits

    def raise_if_invalid(self) -> None:
        """DatasetError, or the subclass of the code, where the dataset cannot be used."""
        if self.error is not None:
            raise _by_code(DatasetError)[self.error.code](self.error.detail)


def _by_code(error: type[DatasetError]) -> dict[str, type[DatasetError]]:
    by_code = {error.code: error}
    for kind in error.__subclasses__():
        by_code |= _by_code(kind)
    return by_code
