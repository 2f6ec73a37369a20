import signal
import subprocess
import sys
import textwrap

import pytest


def run(script):
    head = "from mr_core.datasets.resources import limit_resources\n"
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(script)], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no bound on the address space")
def test_allocation_fails_over_the_address_space():
    done = run("""
        limit_resources(address_space_bytes=400 * 2**20)
        try:
            bytearray(2**30)
        except MemoryError:
            print("refused")
    """)
    assert done.stdout == "refused\n"


def test_is_killed_over_its_cpu_time():
    done = run("""
        limit_resources(cpu_seconds=1)
        while True:
            pass
    """)
    assert done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def test_does_not_loosen_a_bound():
    done = run("""
        import resource
        limit_resources(cpu_seconds=5)
        limit_resources(cpu_seconds=50)
        print(*resource.getrlimit(resource.RLIMIT_CPU))
    """)
    assert done.stdout == "5 6\n"
