"""The peak of a process: it rises with what is held, and does not fall afterwards."""

from pathlib import Path

import numpy as np

from worker import memory


def test_peak_stays_after_memory_is_given_back() -> None:
    before = memory.peak_memory_bytes()
    held = np.ones(32 << 20, dtype=np.uint8)
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    assert memory.peak_memory_bytes() >= rss - (1 << 20)
    del held
    assert memory.peak_memory_bytes() >= max(before, rss - (1 << 20))


def test_where_proc_does_not_tell(monkeypatch, tmp_path: Path) -> None:
    told = memory.peak_memory_bytes()
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    assert memory.peak_memory_bytes() > told / 2
