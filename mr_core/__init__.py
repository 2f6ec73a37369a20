"""Model reprogramming: frozen models, new tasks, small adapters. No HTTP, no SQL, no queue.

`JobSpec` is torch-free; `run` and `load_adapter` import torch when first used.
"""

from typing import TYPE_CHECKING, Any

from mr_core.job_spec import JobSpec

if TYPE_CHECKING:
    from mr_core.adapter import load_adapter
    from mr_core.run_job import run

__all__ = ["JobSpec", "load_adapter", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load_adapter":
        from mr_core.adapter import load_adapter

        return load_adapter
    if name == "run":
        from mr_core.run_job import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
