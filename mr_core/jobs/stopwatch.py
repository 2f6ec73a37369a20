"""Seconds spent in each phase of a job; announces the phases on the way."""

import time

from mr_core.observer import Observer, Phase


class Stopwatch:
    """One clock a job. A phase begun twice adds up."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._seconds: dict[str, float] = {}
        self._phase: str | None = None
        self._since = time.monotonic()

    def begin(self, phase: Phase) -> None:
        """End the phase before, if any, and announce this one."""
        self._close()
        self._phase = phase
        self._observer.phase(phase)

    def seconds(self, phase: Phase) -> float:
        """Seconds spent in a phase until now."""
        self._close()
        return self._seconds.get(phase, 0.0)

    def phases(self) -> dict[str, float]:
        """Seconds by phase until now."""
        self._close()
        return dict(self._seconds)

    def total(self) -> float:
        """Seconds in all phases until now."""
        return sum(self.phases().values())

    def _close(self) -> None:
        now = time.monotonic()
        if self._phase is not None:
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._since = now
