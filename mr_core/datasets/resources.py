"""Bounds for a process that decodes strangers' files."""

import resource
import sys


def limit_resources(*, address_space_bytes: int | None = None, cpu_seconds: int | None = None) -> None:
    """Bind this process, for good: over the address space allocation fails (MemoryError), over the time it is killed.

    For a child process that does nothing else. A bound already lower stays. SIGXCPU comes at `cpu_seconds`
    of CPU time, SIGKILL a second later. On macOS, which has no bound on the address space, that one is skipped.
    """
    if address_space_bytes is not None and sys.platform != "darwin":
        _lower(resource.RLIMIT_AS, address_space_bytes, address_space_bytes)
    if cpu_seconds is not None:
        _lower(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)
    _lower(resource.RLIMIT_CORE, 0, 0)


def _lower(kind: int, soft: int, hard: int) -> None:
    current_soft, current_hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (_smaller(soft, current_soft), _smaller(hard, current_hard)))


def _smaller(wanted: int, current: int) -> int:
    return wanted if current == resource.RLIM_INFINITY else min(wanted, current)
