import errno

import pytest

from mr_core.errors import SpecError, TrainingDiverged
from service.errors import JOB_OUTCOMES, RETRYABLE, StorageUnavailable
from worker.failures import failure_of


@pytest.mark.parametrize(
    ("error", "code", "param"),
    [
        (SpecError("no", param="trainer"), "impossible_spec", "trainer"),
        (TrainingDiverged(3, float("nan")), "diverged", "trainer.learning_rate"),
        (StorageUnavailable("gone"), "storage_unavailable", None),
        (MemoryError(), "worker_oom_killed", None),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "worker_oom_killed",
            None,
        ),
        (RuntimeError("CUDA error: out of memory"), "cuda_oom", None),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "cuda_oom", None),
        (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "device_busy", None),
        (OSError(errno.ENOSPC, "No space left on device"), "storage_unavailable", None),
        (OSError(errno.ENOENT, "No such file"), "internal_error", None),
        (RuntimeError("shape mismatch"), "internal_error", None),
    ],
)
def test_errors_have_typed_codes(error, code, param):
    failure = failure_of(error)
    assert (failure.code, failure.param) == (code, param)
    assert failure.is_bug == (code == "internal_error")


def test_an_accelerators_memory_is_told_from_the_hosts():
    import torch

    assert failure_of(torch.OutOfMemoryError("CUDA out of memory")).code == "cuda_oom"


def test_a_bugs_message_is_not_shown():
    assert "secret" not in failure_of(KeyError("secret")).detail


def test_infrastructure_codes_are_retried_and_known():
    codes = {failure_of(error).code for error in (MemoryError(), OSError(errno.ENOSPC, ""), StorageUnavailable("x"))}
    assert codes <= RETRYABLE
    assert {"worker_oom_killed", "internal_error"} <= JOB_OUTCOMES.keys()
