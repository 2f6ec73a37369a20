"""The entries of an archive and the rules for their names; nothing is ever written to a path an archive names."""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from mr_core.datasets.limits import ArchiveLimits
from mr_core.errors import UnreadableImage, UnsafeArchive

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"})
FOREIGN_IMAGE_SUFFIXES = frozenset({".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".apng", ".mpo"})
ACCEPTED_ARCHIVES = (
    "a zip or tar.gz of train/<class>/ and test/<class>/ folders, of <class>/ folders alone, or of images with a "
    "metadata.csv or metadata.jsonl (file_name, label), an .npz of x_train, y_train[, x_test, y_test], or parquet "
    "with the columns image and label, alone or in a zip"
)

_ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".npz"})
_TEXT_SUFFIXES = frozenset({".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html"})
_SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_TEXT_NAMES = re.compile(r"(readme|licen[cs]e|citation|notice|changelog|copying)\b", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Member:
    """One entry: its name as the archive has it, the parts of its path, its inflated size."""

    name: str
    parts: tuple[str, ...]
    n_bytes: int
    is_folder: bool

    @property
    def suffix(self) -> str:
        """Lower case, with the dot; empty where there is none."""
        _, dot, suffix = self.parts[-1].rpartition(".")
        return f".{suffix.lower()}" if dot else ""


class ArchiveReader(ABC):
    """Goes through an archive twice at most: once for its entries, once for the contents of some."""

    @abstractmethod
    def members(self) -> Iterator[Member]:
        """Every file and folder, in the archive's order, its name checked; ArchiveError where one is unsafe."""

    @abstractmethod
    def contents(self, names: Collection[str]) -> Iterator[tuple[str, bytes | UnreadableImage]]:
        """The named files in the archive's order; a damaged one comes as the error that says so."""


class NameGuard:
    """Checks every name of one archive, each alone and against those before it."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._seen: dict[str, tuple[str, bool]] = {}  # by the path without case: the path, whether a folder

    def parts(self, name: str, *, is_folder: bool) -> tuple[str, ...]:
        """The path as its parts, empty for the archive's own root; UnsafeArchive naming the entry otherwise."""
        parts = safe_parts(name, self._limits)
        for depth in range(len(parts), 0, -1):
            is_ancestor = depth < len(parts)
            if not self._register(name, "/".join(parts[:depth]), is_folder=is_folder or is_ancestor):
                break  # this folder is known, and so are those above it
        return parts

    def _register(self, name: str, path: str, *, is_folder: bool) -> bool:
        """Whether the path is new; a collision is refused."""
        entry = (path, is_folder)
        key = (path if path.isascii() else unicodedata.normalize("NFC", path)).casefold()
        earlier = self._seen.setdefault(key, entry)
        if earlier is entry:
            return True
        if earlier[0] != path:
            raise UnsafeArchive(
                f"{earlier[0]!r} and {path!r} differ only in case or accents' encoding: "
                "rename one, on many systems they are the same file"
            )
        if not (is_folder and earlier[1]):
            raise UnsafeArchive(f"the entry {name!r} comes twice")
        return False


def safe_parts(name: str, limits: ArchiveLimits) -> tuple[str, ...]:
    """The parts of a relative path without `.`; UnsafeArchive for any name that could lead elsewhere."""
    try:
        n_bytes = len(name.encode())
    except UnicodeEncodeError as error:
        raise UnsafeArchive(f"the name {name!r} is not UTF-8") from error
    if n_bytes > limits.name_bytes:
        raise UnsafeArchive(f"the name {name[:60]!r}... has {n_bytes} bytes, the limit is {limits.name_bytes}")
    if _CONTROL.search(name):
        raise UnsafeArchive(f"the name {name!r} has a control character")
    if "\\" in name:
        raise UnsafeArchive(f"the name {name!r} has a backslash; expected / between folders")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise UnsafeArchive(f"the name {name!r} is an absolute path; expected a path inside the archive")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise UnsafeArchive(f"the name {name!r} leads out of the archive with '..'")
    return parts


def is_system_path(parts: tuple[str, ...]) -> bool:
    """What file managers and version control leave behind: __MACOSX, .DS_Store, Thumbs.db, any hidden name."""
    return any(part.startswith(".") or part.lower() in _SYSTEM_NAMES for part in parts)


def is_text(member: Member) -> bool:
    """A README, a licence, a listing: kept out of the classes."""
    return member.suffix in _TEXT_SUFFIXES or bool(_TEXT_NAMES.match(member.parts[-1]))


def is_archive(member: Member) -> bool:
    """An archive within the archive, by its name."""
    return member.suffix in _ARCHIVE_SUFFIXES


def looks_like_image(member: Member) -> bool:
    """Named as an image, of an accepted format or another."""
    return member.suffix in IMAGE_SUFFIXES or member.suffix in FOREIGN_IMAGE_SUFFIXES


def named(names: Iterable[str], *, limit: int = 5) -> str:
    """Some names for a message: `'a', 'b' and 3 more`."""
    everything = list(names)
    shown = ", ".join(repr(name) for name in everything[:limit])
    return shown if len(everything) <= limit else f"{shown} and {len(everything) - limit} more"
