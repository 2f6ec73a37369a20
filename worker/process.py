"""One attempt's process as its supervisor handles it: started, spoken to, watched, killed with all its children."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from worker.oom import OutOfMemoryKills

Word = Literal["cancel", "stop"]
_POLL_S = 0.05


class AttemptProcess:
    """A child in a session of its own, tied to this process by its standard input.

    Start it from the thread that watches it: the kernel kills the child when that thread ends.
    """

    def __init__(
        self,
        request: Mapping[str, Any],
        *,
        variables: Mapping[str, str],
        command: Sequence[str] = (sys.executable, "-m", "worker.attempt"),
    ) -> None:
        self._memory_kills = OutOfMemoryKills()
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, env={**os.environ, **variables}, start_new_session=True
        )
        self.killed = False
        self._write(json.dumps({**request, "parent_pid": os.getpid()}))

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, word: Word) -> None:
        """Say a word to the attempt; a dead one does not hear it."""
        self._write(word)

    def wait(self, timeout_s: float) -> bool:
        """Whether the process has ended, waiting at most `timeout_s` for it."""
        until = time.monotonic() + timeout_s
        while not self._ended():
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(_POLL_S, left))
        return True

    def kill(self) -> None:
        """SIGKILL to the whole group, and reap. Safe to call on one that has ended."""
        if self._process.returncode is not None:
            return
        self.killed = self.killed or not self._ended()
        # The leader is reaped only afterwards, so its number cannot belong to anyone else yet.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    @property
    def exit_status(self) -> int:
        """As `Popen.returncode`: negative is the signal. Only after `kill`."""
        status = self._process.returncode
        if status is None:
            raise RuntimeError("the attempt has not been reaped yet")
        return status

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed it for want of memory: it died of SIGKILL, not by this object's hand."""
        return self.exit_status == -signal.SIGKILL and not self.killed and self._memory_kills.happened()

    def _ended(self) -> bool:
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _write(self, line: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError, ValueError):
            stdin.write(line.encode() + b"\n")
            stdin.flush()
