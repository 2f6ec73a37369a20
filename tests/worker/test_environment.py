import os
import subprocess
import sys

from worker.environment import available_cores, choose_environment, process_variables


def test_threads_are_the_free_cores_unless_a_number_is_given():
    assert choose_environment(0)["threads"] == available_cores()
    assert choose_environment(3)["threads"] == 3


def test_available_cores_respects_the_affinity_mask():
    one_core = {next(iter(os.sched_getaffinity(0)))}
    code = (
        f"import os; os.sched_setaffinity(0, {one_core}); "
        "from worker.environment import available_cores; print(available_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"


def test_variables_come_from_the_stored_environment_and_not_from_this_machine():
    variables = process_variables({"threads": 5, "aten_cpu_capability": "avx2", "onednn_max_cpu_isa": "AVX2"})
    assert variables["OMP_NUM_THREADS"] == variables["MKL_NUM_THREADS"] == "5"
    assert variables["ATEN_CPU_CAPABILITY"] == "avx2"
    assert variables["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert variables["MALLOC_TRIM_THRESHOLD_"] == variables["MALLOC_MMAP_THRESHOLD_"] == "1000000000"


def test_torch_takes_the_threads_and_the_instruction_set():
    environment = choose_environment(1)
    code = "import torch; print(torch.get_num_threads(), torch.backends.cpu.get_cpu_capability().lower())"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **process_variables(environment)},
        capture_output=True,
        check=True,
        text=True,
    )
    threads, capability = result.stdout.split()
    assert threads == "1"
    assert capability == (environment["aten_cpu_capability"] or capability)
