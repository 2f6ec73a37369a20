import contextlib
import os
import signal
import subprocess
import sys

from worker.scratch import remove_leftovers, scratch_folder


def test_folder_is_fresh_private_and_removed_even_after_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("left by an earlier attempt")
    with scratch_folder(tmp_path, "a") as folder:
        assert list(folder.iterdir()) == []
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []
    with contextlib.suppress(KeyError), scratch_folder(tmp_path, "a") as folder:
        (folder / "file").write_text("x")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_go_and_those_in_use_stay(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from worker.scratch import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1]), 'killed') as folder:\n"
        "    (folder / 'images.npy').write_bytes(b'0' * 1000); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    with process, scratch_folder(tmp_path, "mine"):
        assert process.stdout.readline() == b"ready\n"
        assert remove_leftovers(tmp_path) == []
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert remove_leftovers(tmp_path) == ["killed"]
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_nothing_to_remove_before_the_first_attempt(tmp_path):
    assert remove_leftovers(tmp_path / "absent") == []
