import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from worker.process import AttemptProcess

CHILD = """
import json, subprocess, sys, time
request = json.loads(sys.stdin.buffer.raw.readline())
from worker.lifeline import Lifeline, die_with_parent
lifeline = Lifeline()
lifeline.follow(sys.stdin.buffer.raw)
die_with_parent(request["parent_pid"])
"""
SLEEP = CHILD + "time.sleep(60)"
CANCELLED = CHILD + "sys.exit(7 if lifeline.cancelled.wait(20) and not lifeline.stopping.is_set() else 1)"
STOPPED = CHILD + "sys.exit(8 if lifeline.stopping.wait(20) and not lifeline.cancelled.is_set() else 1)"
GRANDCHILD = (
    CHILD + "print(subprocess.Popen(['sleep', '60']).pid, file=open(request['file'], 'w'), flush=True); time.sleep(60)"
)


@pytest.fixture
def start():
    with contextlib.ExitStack() as stack:

        def run(code, **request):
            process = AttemptProcess(request, variables={"MARK": "1"}, command=(sys.executable, "-c", code))
            stack.callback(process.kill)
            return process

        yield run


def wait_until(condition, timeout_s=10.0):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("code", "word", "status"), [(CANCELLED, "cancel", 7), (STOPPED, "stop", 8)])
def test_attempt_hears_what_the_supervisor_says(start, code, word, status):
    process = start(code)
    process.tell(word)
    assert process.wait(20)
    process.kill()
    assert process.exit_status == status
    assert not process.killed


def test_kill_takes_grandchildren_too_and_a_stopped_process(start, tmp_path):
    process = start(GRANDCHILD, file=str(tmp_path / "pid"))
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    os.kill(process.pid, signal.SIGSTOP)
    process.kill()
    assert process.exit_status == -signal.SIGKILL
    assert process.killed
    assert not process.out_of_memory
    wait_until(lambda: is_gone(int((tmp_path / "pid").read_text())))


def test_a_grandchild_that_outlives_the_attempt_is_killed_when_it_is_reaped(start, tmp_path):
    process = start(GRANDCHILD.replace("time.sleep(60)", "sys.exit(0)"), file=str(tmp_path / "pid"))
    assert process.wait(20)
    process.kill()
    assert (process.exit_status, process.killed) == (0, False)
    wait_until(lambda: is_gone(int((tmp_path / "pid").read_text())))


def test_killed_by_another_hand_is_told_from_killed_by_the_supervisor(start):
    process = start(SLEEP)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(5)
    process.kill()
    assert process.exit_status == -signal.SIGKILL
    assert not process.killed
    assert not process.out_of_memory  # no counter rose


def test_wait_returns_after_its_timeout(start):
    process = start(SLEEP)
    started = time.monotonic()
    assert not process.wait(0.2)
    assert 0.2 <= time.monotonic() - started < 2


@pytest.mark.parametrize("last_signal", [signal.SIGKILL, signal.SIGTERM])
def test_attempt_dies_at_once_with_its_supervisor(tmp_path, last_signal):
    code = (
        "import sys, time\nfrom worker.process import AttemptProcess\n"
        f"process = AttemptProcess({{}}, variables={{}}, command=(sys.executable, '-c', {SLEEP!r}))\n"
        "print(process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as supervisor:
        attempt = int(supervisor.stdout.readline())
        time.sleep(0.5)
        supervisor.send_signal(last_signal)
        wait_until(lambda: is_gone(attempt), timeout_s=2)


def test_attempt_of_a_supervisor_that_died_before_it_looked_ends_itself():
    code = "from worker.lifeline import die_with_parent; die_with_parent(1 << 22); print('alive')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (-signal.SIGKILL, b"")
