"""Parts of the service as child processes: started, restarted with back-off when they die, stopped in order."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.output import say

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S, _STEADY_S = 0.5, 30.0, 60.0
_LOG_BYTES = 10 << 20


@dataclass
class Part:
    """One process. `prepare` gives variables made anew for each start; it logs to a file of its own."""

    name: str
    arguments: Sequence[str]
    log: Path
    variables: Mapping[str, str]
    prepare: Callable[[], Mapping[str, str]] = dict
    inherited: Sequence[int] = ()  # file descriptors that it shares with this process
    module: str = "cli.part"  # given the number of this process and the arguments
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)
    _started_at: float = field(default=0.0, init=False)
    _start_again_at: float | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C reaches this process alone, which then stops its parts in order."""
        self._start_again_at = None
        self._started_at = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, str(os.getpid()), *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.variables, **self.prepare()},
                start_new_session=True,
                pass_fds=self.inherited,
            )

    def look_after(self) -> None:
        """Start it again if it has ended, later each time it fails soon after its start."""
        if self.process is None:
            return
        now = time.monotonic()
        if self._start_again_at is not None:
            if now >= self._start_again_at:
                self.start()
            return
        status = self.process.poll()
        if status is None:
            return
        self._failures = 0 if now - self._started_at > _STEADY_S else self._failures + 1
        wait_s = min(_FIRST_BACKOFF_S * 2 ** max(0, self._failures - 1), _LONGEST_BACKOFF_S)
        self._start_again_at = now + wait_s
        say(f"the {self.name} {_ending(status)}; it starts again in {wait_s:.1f} s (see {self.log})")

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def last_words(self) -> str:
        """The last line of its log, to say why it does not start."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""


def stop(parts: Sequence[Part], *, patience_s: float) -> None:
    """Ask these parts to end, all at once, and wait; what has not ended by then is killed with its children."""
    for part in parts:
        if part.is_alive and part.process is not None:
            part.process.terminate()
    give_up_at = time.monotonic() + patience_s
    for part in parts:
        if part.process is None:
            continue
        try:
            part.process.wait(max(0.0, give_up_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            say(f"the {part.name} does not stop; it is killed")
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(part.process.pid, signal.SIGKILL)  # children that outlived their leader, too
        part.process.wait()


def _ending(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
