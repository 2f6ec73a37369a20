"""The embedded service as a user starts it, in processes of its own."""

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from cli.client import Client
from tests.processes import processes_on, wait_until

# A lost worker is noticed within seconds; long enough for a machine that runs other tests as well.
_QUICK = {"MR_LEASE_S": "12", "MR_HEARTBEAT_S": "3", "MR_SWEEP_S": "1"}


@dataclass
class Up:
    """`mr up` on a data folder; can be killed and started again."""

    data_dir: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> "Up":
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MR_")} | _QUICK
        command = [sys.executable, "-m", "cli.main", "up", "--data-dir", str(self.data_dir), "--port", "0"]
        self.data_dir.mkdir(exist_ok=True)
        with (self.data_dir / "up.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        wait_until(self.is_ready, 180, "mr up is ready")
        return self

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return httpx.get(f"{self.address}/readyz", timeout=5).status_code == 200
        except (httpx.HTTPError, FileNotFoundError):
            return False

    def kill(self) -> None:
        """As a crash would: nothing of it gets to say good-bye."""
        assert self.process is not None
        (self.data_dir / "address").unlink()
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)

    @property
    def address(self) -> str:
        return (self.data_dir / "address").read_text()

    @property
    def key(self) -> str:
        return (self.data_dir / "api-key").read_text()

    @property
    def log(self) -> str:
        return (self.data_dir / "up.log").read_text()

    def client(self) -> Client:
        return Client(self.address, self.key, timeout_s=180)

    def processes(self) -> list[psutil.Process]:
        """Everything that lives on the data folder: parts, attempts, the database and its backends."""
        return processes_on(self.data_dir)


@pytest.fixture(scope="module")
def up():
    """A running service, ended with the module whatever became of it."""
    # Not under pytest's own folder: every pytest that starts closes that one to PostgreSQL's account.
    with tempfile.TemporaryDirectory(prefix="mr-acceptance-") as folder:
        service = Up(Path(folder) / "data")
        try:
            yield service.start()
        finally:
            if service.process is not None and service.process.poll() is None:
                service.stop()
            for process in service.processes():
                process.kill()
