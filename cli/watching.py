"""Follow a job to its end: progress with rate and time left on stderr; Ctrl-C asks the service to cancel it."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cli.client import TERMINAL, Client
from cli.output import say

_POLL_S = 0.4
_AWAY_S = 60  # a gateway that restarts is waited for


def watch(client: Client, job_id: str) -> dict[str, Any]:
    """The job once it has ended. The first Ctrl-C cancels it, a second one leaves (KeyboardInterrupt)."""
    console = Console(stderr=True)
    cancelling = False
    with _bar(console) as bar:
        view = _View(bar, console)
        while True:
            try:
                job = client.job(job_id, patience_s=_AWAY_S)
                view.show(job)
                view.tell(client.get(f"/v1/jobs/{job_id}/events", after=view.seq, limit=100)["data"])
                if job["status"] in TERMINAL:
                    return job
                time.sleep(_POLL_S)
            except KeyboardInterrupt:
                if cancelling:
                    raise
                cancelling = True
                say("cancelling the job; Ctrl-C again leaves at once")
                client.cancel(job_id)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=32),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


class _View:
    """What has been shown so far: a bar a phase on a terminal, a line a phase elsewhere."""

    def __init__(self, bar: Progress, console: Console) -> None:
        self.seq = 0
        self._bar, self._console = bar, console
        self._stage: str | None = None
        self._task: TaskID | None = None

    def show(self, job: dict[str, Any]) -> None:
        stage = (job["phase"] or "running") if job["status"] == "running" else job["status"]
        if stage != self._stage:
            self._stage = stage
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(stage, total=None, start=True, rate="")
            if not self._console.is_terminal:
                say(stage)
        progress = job.get("progress")
        if self._task is not None and progress and job["status"] == "running":
            task = self._bar.tasks[-1]
            rate = f"({task.speed:.1f}/s)" if task.speed else ""
            self._bar.update(self._task, completed=progress["step"], total=progress["total"] or None, rate=rate)

    def tell(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            self.seq = max(self.seq, event["seq"])
            line = _line(event)
            if line:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _line(event: dict[str, Any]) -> str | None:
    data = event["data"]
    if event["type"] == "message":
        return str(data.get("text") or data)
    if event["type"] == "metrics":
        return "  ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                         for name, value in data.items() if value is not None)  # fmt: skip
    return None
