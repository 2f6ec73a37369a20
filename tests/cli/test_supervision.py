import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from cli import supervision
from cli.supervision import Part, stop


def until(condition, timeout_s=30):
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.02)


def is_alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def part(tmp_path, monkeypatch):
    """A part that waits for its end: the embedded database's, without a database."""
    monkeypatch.setattr(supervision, "_FIRST_BACKOFF_S", 0.05)
    part = Part("sleeper", ["doctor", "--only", "nothing-of-that-name"], tmp_path / "logs" / "sleeper.log", {})
    yield part
    stop([part], patience_s=5)


@pytest.fixture
def open_folder():
    """Not under pytest's own folder: every pytest that starts closes that one to PostgreSQL's account."""
    with tempfile.TemporaryDirectory(prefix="mr-supervision-") as folder:
        yield Path(folder)


def test_a_part_that_ends_is_started_again_and_that_is_said(part, capsys):
    part.start()
    first = part.process
    until(lambda: part.look_after() or part.process is not first)
    said = capsys.readouterr().err
    assert "the sleeper ended with exit code 2; it starts again in 0.1 s" in said
    assert "no check is called nothing-of-that-name" in part.last_words()


def test_each_failure_soon_after_the_start_waits_longer(part, capsys):
    waits = []
    part.start()
    for _ in range(3):
        until(lambda: part.look_after() or part._start_again_at is not None)
        waits.append(round(part._start_again_at - time.monotonic(), 2))
        until(lambda: part.look_after() or part._start_again_at is None)
    assert waits == sorted(waits)
    assert waits[2] > 3 * waits[0]


def test_stopping_kills_what_does_not_stop_and_its_children(part, tmp_path, capsys):
    stubborn = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    part.process = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=True)
    child = psutil.Process(int(part.process.stdout.readline()))
    stop([part], patience_s=0.3)
    part.process.stdout.close()
    assert "the sleeper does not stop; it is killed" in capsys.readouterr().err
    until(lambda: not is_alive(child))


def test_a_part_gets_sigterm_when_its_parent_is_killed(open_folder):
    """`cli.part` under a parent that is killed with SIGKILL: it ends, though nobody told it to."""
    parent = (
        "import os, subprocess, sys, time\n"
        "part = [sys.executable, '-m', 'cli.part', str(os.getpid()), 'postgres']\n"
        "child = subprocess.Popen(part, start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    environment = {**os.environ, "MR_DATA_DIR": str(open_folder)}
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=environment)
    part = psutil.Process(int(process.stdout.readline()))
    until((open_folder / "postgres" / "postmaster.pid").exists)
    server = psutil.Process(int((open_folder / "postgres" / "postmaster.pid").read_text().split()[0]))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    until(lambda: not is_alive(part) and not is_alive(server))
