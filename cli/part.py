"""How `mr up` starts a part: tied to it, so that the part stops by itself when `mr up` is killed."""

import ctypes
import os
import signal
import sys

from cli.main import main

_PR_SET_PDEATHSIG = 1


def stop_with_parent(parent_pid: int) -> None:
    """Have the kernel send SIGTERM, the polite stop, when the parent dies; send it now if it is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    stop_with_parent(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
