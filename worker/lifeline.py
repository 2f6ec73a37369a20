"""The attempt's side of its tie to the supervisor: dies with it, hears what it says on standard input."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from io import RawIOBase
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = "800"  # the kernel's first choice: before the supervisor, the database, the broker


class Lifeline:
    """What the supervisor asked for, kept as flags that the run reads between steps."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.stopping = threading.Event()

    def follow(self, stream: RawIOBase) -> None:
        """Read the supervisor's words from now on; the end of the stream is its death, and this group's.

        The stream is unbuffered: a thread that waits on a buffered one holds its lock as the interpreter ends.
        """
        threading.Thread(target=self._listen, args=(stream,), name="lifeline", daemon=True).start()

    def _listen(self, stream: RawIOBase) -> None:
        while line := stream.readline():
            if line == b"cancel\n":
                self.cancelled.set()
            elif line == b"stop\n":
                self.stopping.set()
        os.killpg(os.getpgrp(), signal.SIGKILL)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; at once if it is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def prefer_as_oom_victim() -> None:
    """Ask the kernel to take this process first when memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
