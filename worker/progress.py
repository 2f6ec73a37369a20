"""How far a phase is, and how long the rest will take at the pace so far."""

import time
from collections.abc import Callable
from typing import Any


class ProgressMeter:
    """Measures one phase from its first report, so that what was restored from a checkpoint does not count as pace."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def measure(self, step: int, total: int, *, unit: str) -> dict[str, Any]:
        """`step`, `total`, `unit`, `percent`, and `eta_s`: null until there is a pace."""
        now = self._clock()
        if self._first is None:
            self._first = (now, step)
        began, first_step = self._first
        done = step - first_step
        eta_s = round((now - began) / done * max(total - step, 0), 1) if done > 0 else None
        percent = round(100 * min(step / total, 1), 1) if total > 0 else None
        return {"step": step, "total": total, "unit": unit, "percent": percent, "eta_s": eta_s}
