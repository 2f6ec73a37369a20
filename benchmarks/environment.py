"""What every measurement states, and the allocator every side of a comparison gets."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

# glibc otherwise gives large buffers back to the kernel and faults them in again at every step.
ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "GOMP_SPINCOUNT": "10000",  # idle threads that spin for long slow down both sides on a busy machine
}


def allocator_settings() -> Mapping[str, str]:
    """This process's environment with the allocator settings that attempts run under."""
    return {**os.environ, **ALLOCATOR}


def describe_machine() -> str:
    """One line: processor, cores this process may use, load at this moment."""
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    processor = names[0] if names else platform.processor()
    return f"{processor}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"


def test_data() -> Path | None:
    """The folder of real weights and data that lies beside a checkout, or `MR_TEST_DATA`; None where there is none."""
    folder = Path(os.environ.get("MR_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    return folder if folder.is_dir() else None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
