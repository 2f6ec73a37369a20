"""Scratch folders of attempts: locked while in use, so what a killed worker left is recognised and removed."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(root: Path, name: str) -> Iterator[Path]:
    """A fresh folder `root/name`, locked by this process and removed at the end, whatever happened in it."""
    folder = root / name
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_leftovers(root: Path) -> list[str]:
    """Remove the folders that no living process has locked; their names."""
    if not root.is_dir():
        return []
    with _locked(root):
        leftovers = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _is_abandoned(folder)]
        for folder in leftovers:
            shutil.rmtree(folder, ignore_errors=True)
    return [folder.name for folder in leftovers]


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """No folder appears or is swept meanwhile, so none is taken for abandoned before its maker has locked it."""
    lock = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _is_abandoned(folder: Path) -> bool:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(lock)
