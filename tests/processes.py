"""Processes of a service under test, and waiting for what they do."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.2)


def processes_on(folder: Path) -> list[psutil.Process]:
    """Everything that lives on the data folder: parts, attempts, the database and its backends."""
    found = []
    for process in psutil.process_iter():
        try:
            names = (process.environ().get("MR_DATA_DIR"), process.cwd())
            ours = any(name and Path(name).is_relative_to(folder) for name in names)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
