"""How an error of an attempt is told to the client: a typed code and a sentence; a bug shows in the log only."""

import errno
import sys
from dataclasses import dataclass

from mr_core.errors import ReprogrammingError
from service.errors import DeviceBusy, ServiceError, StorageUnavailable

_HOST_ALLOCATION = ("can't allocate memory", "not enough memory", "std::bad_alloc")
_DEVICE_ALLOCATION = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_DEVICE_BUSY = ("busy or unavailable", "device unavailable")


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed. `code` is in docs/errors.md; `param` names the part of the request at fault."""

    code: str
    detail: str
    param: str | None = None
    is_bug: bool = False


def failure_of(error: BaseException) -> Failure:
    """The failure that an error means."""
    if isinstance(error, ReprogrammingError | ServiceError):
        return Failure(error.code, error.detail, error.param)
    if isinstance(error, MemoryError):
        return Failure("worker_oom_killed", "the attempt ran out of memory")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return Failure(StorageUnavailable.code, f"the worker's disk cannot be written: {error.strerror}")
    if isinstance(error, RuntimeError):
        return _of_runtime_error(error)
    return _bug(error)


def _of_runtime_error(error: RuntimeError) -> Failure:
    torch = sys.modules.get("torch")
    text = str(error)
    is_full = torch is not None and isinstance(error, torch.OutOfMemoryError)
    if is_full or any(sign in text for sign in _DEVICE_ALLOCATION):
        return Failure("cuda_oom", "the accelerator ran out of memory")
    if any(sign in text for sign in _HOST_ALLOCATION):
        return Failure("worker_oom_killed", "the attempt ran out of memory")
    if any(sign in text for sign in _DEVICE_BUSY):
        return Failure(DeviceBusy.code, "the accelerator has no room for another process")
    return _bug(error)


def _bug(error: BaseException) -> Failure:
    return Failure("internal_error", f"a bug in the service ({type(error).__name__}); it was logged", is_bug=True)
