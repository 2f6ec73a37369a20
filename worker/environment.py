"""What fixes an attempt's arithmetic: thread count and instruction set.

Chosen at a job's first claim, stored in its row, used again by every later attempt: a resumed job ends
with the same bytes only where both are the same.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Large buffers given back to the kernel are faulted in again at every step: up to 5x slower training.
_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
# Idle threads that spin take the cores from the busy ones: four times slower on a machine that does other work too.
# Threads that never spin lose a fifth on an idle one; some microseconds cost neither.
_WAITING = {"GOMP_SPINCOUNT": "10000"}
_THREAD_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def choose_environment(threads: int) -> dict[str, Any]:
    """The environment of a first attempt on this machine; `threads` 0 means every core this process may use."""
    flags = _cpu_flags()
    return {
        "threads": threads or available_cores(),
        "machine": platform.machine(),
        "aten_cpu_capability": _aten_capability(flags),
        "onednn_max_cpu_isa": _onednn_isa(flags),
    }


def available_cores() -> int:
    """Cores this process may run on; a cgroup's quota is not seen."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_variables(environment: Mapping[str, Any]) -> dict[str, str]:
    """The variables that an attempt's process needs before torch is imported."""
    variables = _ALLOCATOR | _WAITING | {name: str(environment["threads"]) for name in _THREAD_POOLS}
    if capability := environment.get("aten_cpu_capability"):
        variables["ATEN_CPU_CAPABILITY"] = str(capability)
    if isa := environment.get("onednn_max_cpu_isa"):
        variables["ONEDNN_MAX_CPU_ISA"] = str(isa)
    return variables


def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


def _aten_capability(flags: frozenset[str]) -> str | None:
    if {"avx512f", "avx512vl", "avx512bw", "avx512dq", "fma"} <= flags:
        return "avx512"
    return "avx2" if {"avx2", "fma"} <= flags else None


def _onednn_isa(flags: frozenset[str]) -> str | None:
    if not {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= flags:
        return "AVX2" if "avx2" in flags else None
    for flag, isa in (("amx_bf16", "AMX"), ("avx512_bf16", "BF16"), ("avx512_vnni", "VNNI")):
        if flag in flags:
            return f"AVX512_CORE_{isa}"
    return "AVX512_CORE"
