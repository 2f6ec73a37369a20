"""Whether the kernel has been killing for want of memory: its counters, before and after."""

import re
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


class OutOfMemoryKills:
    """Compares the kernel's counters of out-of-memory kills with those at construction.

    Read are this process's memory cgroup (v2 `memory.events`, v1 `memory.oom_control`) and the machine's
    `/proc/vmstat`; a rise in any of them counts. Without any of these files the answer is always no.
    """

    def __init__(self, counters: tuple[Path, ...] | None = None) -> None:
        self._paths = _counter_files() if counters is None else counters
        self._before = self._read()

    def happened(self) -> bool:
        """Whether any counter has risen."""
        return any(now > before for now, before in zip(self._read(), self._before, strict=True))

    def _read(self) -> list[int]:
        return [_kills(path) for path in self._paths]


def _counter_files() -> tuple[Path, ...]:
    found = [Path("/proc/vmstat")]
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return tuple(found)
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found.append(_ROOT / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(_ROOT / "memory" / path.lstrip("/") / "memory.oom_control")
    return tuple(found)


def _kills(path: Path) -> int:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else 0
