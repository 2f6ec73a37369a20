"""Gathers what a report says while the images pass by: digests, sizes and names are kept, pixels are not."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping

import numpy as np
from PIL import Image

from mr_core.datasets.archive import ArchiveListing
from mr_core.datasets.images import DecodedImage
from mr_core.datasets.layout import Sample, check_trainable, count_by_class
from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.members import named
from mr_core.datasets.pack import Split
from mr_core.datasets.report import (
    LISTED,
    BadFile,
    DatasetFault,
    DatasetReport,
    DuplicateReport,
    ImageStatistics,
    LeakReport,
    SideStatistics,
)
from mr_core.errors import DatasetError

_IMBALANCE = 10  # largest over smallest class, from which a report warns
_TINY_CLASS = 10  # training images, below which it does


class Findings:
    """Fed with every sample of a listing, in any order; `report` tells the sum of it."""

    def __init__(self, listing: ArchiveListing, limits: ArchiveLimits) -> None:
        self._listing = listing
        self._limits = limits
        self._usable: list[Sample] = []
        self._digests: list[bytes] = []  # of `_usable`, in step
        self._widths = array("l")
        self._heights = array("l")
        self._modes: Counter[str] = Counter()
        self._corrupt: list[BadFile] = []
        self._n_corrupt = 0
        self._n_reduced = 0

    def add_image(self, sample: Sample, decoded: DecodedImage) -> None:
        """A usable image."""
        self._usable.append(sample)
        self._digests.append(pixel_digest(decoded.image))
        self._widths.append(decoded.size[0])
        self._heights.append(decoded.size[1])
        self._modes[decoded.mode] += 1
        self._n_reduced += decoded.is_reduced

    def add_corrupt(self, name: str, reason: str) -> None:
        """An image, or a row, that is left out."""
        self._n_corrupt += 1
        if len(self._corrupt) < LISTED:
            self._corrupt.append(BadFile(name=name, reason=reason))

    def report(self, failure: DatasetError | None = None) -> DatasetReport:
        """The report; `invalid` where `failure` is given or what is usable cannot be trained on."""
        counts = {name: dict.fromkeys(splits, 0) for name, splits in self._listing.counts.items()}
        counts.update(count_by_class(self._usable))
        if failure is None:
            failure = self._untrainable(counts)
        duplicates, leakage = self._duplicates(), self._leakage()
        return DatasetReport(
            status="ready" if failure is None else "invalid",
            error=None if failure is None else DatasetFault(code=failure.code, detail=failure.detail),
            format=self._listing.format,
            layout=self._listing.layout,
            classes=sorted(counts),
            splits={"train": self._n("train"), "test": self._n("test")},
            counts=counts,
            is_test_carved=self._listing.is_carved,
            images=self._statistics(),
            n_corrupt=self._n_corrupt,
            corrupt=self._corrupt,
            n_ignored=len(self._listing.ignored),
            ignored=list(self._listing.ignored[:LISTED]),
            n_reduced=self._n_reduced,
            duplicates=duplicates,
            leakage=leakage,
            warnings=self._warnings(counts, duplicates, leakage),
            limits=self._limits,
        )

    def _n(self, split: Split) -> int:
        return sum(sample.split == split for sample in self._usable)

    def _untrainable(self, counts: Mapping[str, Mapping[Split, int]]) -> DatasetError | None:
        usable = {name: splits for name, splits in counts.items() if any(splits.values())}
        try:
            check_trainable(usable)
            check_trainable(counts)  # a class that lost every image is not dropped in silence
        except DatasetError as error:
            if not self._n_corrupt:
                return error
            first = self._corrupt[0]
            return type(error)(
                f"{error.detail}. {self._n_corrupt} of {self._listing.n_found} files cannot be used, "
                f"the first {first.name!r}: {first.reason}"
            )
        return None

    def _statistics(self) -> ImageStatistics | None:
        if not self._usable:
            return None
        return ImageStatistics(
            width=_side(self._widths), height=_side(self._heights), modes=dict(sorted(self._modes.items()))
        )

    def _duplicates(self) -> DuplicateReport:
        by_digest: dict[bytes, list[Sample]] = {}
        for sample, digest in zip(self._usable, self._digests, strict=True):
            if sample.split == "train":
                by_digest.setdefault(digest, []).append(sample)
        groups = sorted(
            (sorted(group, key=lambda sample: sample.source) for group in by_digest.values() if len(group) > 1),
            key=lambda group: group[0].source,
        )
        return DuplicateReport(
            n_groups=len(groups),
            n_images=sum(len(group) for group in groups),
            n_groups_of_several_classes=sum(len({sample.class_name for sample in group}) > 1 for group in groups),
            groups=[[sample.source for sample in group[:LISTED]] for group in groups[:LISTED]],
        )

    def _leakage(self) -> LeakReport:
        pairs = list(zip(self._usable, self._digests, strict=True))
        trained = {digest for sample, digest in pairs if sample.split == "train"}
        leaked = sorted(sample.source for sample, digest in pairs if sample.split == "test" and digest in trained)
        return LeakReport(n_images=len(leaked), images=leaked[:LISTED])

    def _warnings(
        self, counts: Mapping[str, Mapping[Split, int]], duplicates: DuplicateReport, leakage: LeakReport
    ) -> list[str]:
        n_train = {name: splits["train"] for name, splits in counts.items()}
        largest, smallest = max(n_train.values()), min(n_train.values())
        tiny = [name for name, n in n_train.items() if 0 < n < _TINY_CLASS]
        untested = [name for name, splits in counts.items() if splits["test"] == 0]
        n_test = self._n("test")
        warnings = {
            f"{self._n_corrupt} files cannot be read as images and are left out": self._n_corrupt,
            f"the classes are imbalanced: {largest} training images in the largest, {smallest} in the smallest": (
                smallest > 0 and largest > _IMBALANCE * smallest
            ),
            f"fewer than {_TINY_CLASS} training images: {named(tiny)}": tiny,
            f"{leakage.n_images} of {n_test} test images are in the training split too: "
            "the test accuracy will flatter": leakage.n_images,
            f"{duplicates.n_groups_of_several_classes} groups of equal training images carry different labels": (
                duplicates.n_groups_of_several_classes
            ),
            f"{duplicates.n_images} training images have equals in {duplicates.n_groups} groups": duplicates.n_groups,
            "there was no test split: a fifth of each class was taken for it": self._listing.is_carved and n_test,
            f"without a test image: {named(untested)}": untested,
            f"{self._n_reduced} images were reduced to a shorter side of {self._limits.reduced_side} pixels": (
                self._n_reduced
            ),
        }
        return [text for text, applies in warnings.items() if applies]


def pixel_digest(image: Image.Image) -> bytes:
    """Equal for images of equal mode, size and pixels."""
    head = f"{image.mode} {image.width} {image.height} ".encode()
    return hashlib.blake2b(head + image.tobytes(), digest_size=16).digest()


def _side(values: "array[int]") -> SideStatistics:
    sides = np.frombuffer(values, dtype=np.dtype(values.typecode))
    return SideStatistics(min=int(sides.min()), median=float(np.median(sides)), max=int(sides.max()))
