"""Which class and split each file of an archive belongs to, by its path or by a metadata file."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mr_core.datasets.members import ACCEPTED_ARCHIVES, Member, looks_like_image, named
from mr_core.datasets.pack import SPLITS, Split
from mr_core.datasets.splits import stratified_split
from mr_core.errors import ClassTooSmall, DatasetError, EmptyClass, OneClass, UnknownLayout

Layout = Literal["split_folders", "class_folders", "metadata", "arrays", "table"]

TEST_FRACTION = 0.2
MIN_TRAIN_IMAGES = 2
_CARVED_SEED = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of the dataset: its name in the archive, its split and its class."""

    source: str
    split: Split
    class_name: str


@dataclass(frozen=True)
class Arrangement:
    """What a layout gives: samples, files left out, and folders of classes that may turn out to be empty.

    `unlabelled` are rows without a label, each with the reason.
    """

    layout: Layout
    samples: tuple[Sample, ...]
    ignored: tuple[str, ...] = ()
    class_folders: frozenset[tuple[str, str]] = frozenset()  # (split, class)
    unlabelled: tuple[tuple[str, str], ...] = ()


def arrange_folders(files: Sequence[Member], folders: Iterable[tuple[str, ...]]) -> Arrangement:
    """Samples of `train/<class>/` and `test/<class>/`, or of `<class>/` alone, below an optional common folder.

    UnknownLayout naming what was found where neither fits.
    """
    all_folders = {folder for folder in folders if folder} | {file.parts[:-1] for file in files}
    depth = _common_depth(files, all_folders)
    below = [(file, file.parts[depth:]) for file in files]
    folder_paths = {folder[depth:] for folder in all_folders if len(folder) > depth}
    has_splits = any(len(parts) > 2 and parts[0].lower() in SPLITS for _, parts in below)
    n_levels = 2 if has_splits else 1  # folders above an image, at least
    ignored = tuple(file.name for file, parts in below if len(parts) <= n_levels and not looks_like_image(file))
    placed = [(file, parts) for file, parts in below if len(parts) > n_levels]
    homeless = [file.name for file, parts in below if len(parts) <= n_levels and looks_like_image(file)]
    if homeless:
        raise UnknownLayout(f"images outside any class folder: {named(homeless)}. Expected {ACCEPTED_ARCHIVES}")
    if not has_splits:
        samples = tuple(Sample(file.name, "train", parts[0]) for file, parts in placed)
        class_folders = frozenset(("train", path[0]) for path in folder_paths)
        return Arrangement("class_folders", samples, ignored, class_folders)
    _refuse_other_splits({parts[0] for file, parts in placed if looks_like_image(file)})
    ignored += tuple(file.name for file, parts in placed if parts[0].lower() not in SPLITS)
    placed = [(file, parts) for file, parts in placed if parts[0].lower() in SPLITS]
    samples = tuple(Sample(file.name, _split(parts[0]), parts[1]) for file, parts in placed)
    class_folders = frozenset(
        (_split(path[0]), path[1]) for path in folder_paths if len(path) > 1 and path[0].lower() in SPLITS
    )
    return Arrangement("split_folders", samples, ignored, class_folders)


def finish(arrangement: Arrangement) -> tuple[Arrangement, bool]:
    """The arrangement checked for what training needs, its test split carved where it has none.

    The second value says whether it was carved: 20 % of each class of three or more, seed 0, over the
    sorted names, so the order in the archive does not matter. OneClass, EmptyClass, ClassTooSmall.
    """
    samples = tuple(sorted(arrangement.samples, key=lambda sample: (sample.split, sample.class_name, sample.source)))
    counts = count_by_class(samples)
    _refuse_empty(counts, arrangement.class_folders)
    check_trainable(counts)
    has_test = any(sample.split == "test" for sample in samples)
    if not has_test:
        samples = _carve(samples)
    return replace(arrangement, samples=samples), not has_test


def count_by_class(samples: Iterable[Sample]) -> dict[str, dict[Split, int]]:
    """Images of each class by split, classes sorted."""
    counted = Counter((sample.class_name, sample.split) for sample in samples)
    return {name: {split: counted[name, split] for split in SPLITS} for name in sorted({name for name, _ in counted})}


def check_trainable(counts: Mapping[str, Mapping[Split, int]]) -> None:
    """OneClass, EmptyClass or ClassTooSmall unless two classes or more have two training images or more each."""
    if not counts:
        raise DatasetError("no image was found that can be used")
    if len(counts) == 1:
        raise OneClass(f"a single class, {next(iter(counts))!r}, was found; expected two or more")
    absent = [name for name, splits in counts.items() if splits["train"] == 0]
    if absent:
        raise EmptyClass(f"without any training image: {named(absent)}; expected two or more of each class")
    small = [name for name, splits in counts.items() if splits["train"] < MIN_TRAIN_IMAGES]
    if small:
        raise ClassTooSmall(f"with a single training image: {named(small)}; expected two or more of each class")


def _refuse_empty(counts: Mapping[str, Mapping[Split, int]], class_folders: frozenset[tuple[str, str]]) -> None:
    empty = sorted(f"{split}/{name}" for split, name in class_folders if split == "train" and name not in counts)
    if empty:
        raise EmptyClass(f"class folders without images: {named(empty)}; remove them or add two images or more to each")


def _carve(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    by_class: dict[str, list[int]] = defaultdict(list)
    for position, sample in enumerate(samples):
        by_class[sample.class_name].append(position)
    # A class of two keeps both for training: a split would leave it too small.
    divisible = [name for name in sorted(by_class) if len(by_class[name]) > MIN_TRAIN_IMAGES]
    positions = [position for name in divisible for position in by_class[name]]
    labels = [label for label, name in enumerate(divisible) for _ in by_class[name]]
    if not positions:
        return tuple(samples)
    _, held_out = stratified_split(labels, TEST_FRACTION, _CARVED_SEED)
    test = {positions[i] for i in held_out}
    return tuple(replace(sample, split="test") if i in test else sample for i, sample in enumerate(samples))


def _common_depth(files: Sequence[Member], folders: Iterable[tuple[str, ...]]) -> int:
    """1 where one folder holds everything and is neither a split nor the only class; else 0."""
    images = [file for file in files if looks_like_image(file)] or files
    tops = {folder[0] for folder in folders if folder} | {file.parts[0] for file in images}
    if len(tops) != 1 or next(iter(tops)).lower() in SPLITS:
        return 0
    return 1 if images and all(len(file.parts) > 2 for file in images) else 0


def _refuse_other_splits(tops: set[str]) -> None:
    others = sorted(top for top in tops if top.lower() not in SPLITS)
    if others:
        raise UnknownLayout(
            f"beside train and test there are the folders {named(others)}; put their images into train or test "
            "(validation data is taken from train by the job)"
        )
    if not any(top.lower() == "train" for top in tops):
        raise UnknownLayout("there is a test folder but no train folder; expected train/<class>/")


def _split(top: str) -> Split:
    return "test" if top.lower() == "test" else "train"
