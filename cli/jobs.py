"""Look at jobs, and cancel them."""

import argparse
from itertools import islice
from typing import Any

from cli.client import TERMINAL, connect
from cli.errors import Exit
from cli.output import print_json, print_result, print_table
from cli.watching import watch


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the raw answer, and nothing else, on stdout")
    if name == "jobs":
        for parameter in ("status", "kind", "dataset"):
            parser.add_argument(f"--{parameter}", help=f"only jobs of this {parameter}")
        parser.add_argument("--limit", type=int, default=20, help="at most so many, newest first")
        parser.set_defaults(run=_list)
        return
    parser.add_argument("job", metavar="ID")
    if name == "job":
        parser.add_argument("--watch", action="store_true", help="follow it to its end; Ctrl-C cancels it")
        parser.set_defaults(run=_show)
    elif name == "cancel":
        parser.set_defaults(run=_cancel)
    else:
        parser.add_argument("--after", type=int, default=0, help="only events with a greater number")
        parser.set_defaults(run=_events)


def _list(arguments: argparse.Namespace) -> int:
    filters = {"status": arguments.status, "kind": arguments.kind, "dataset": arguments.dataset}
    with connect() as client:
        jobs = list(islice(client.pages("/v1/jobs", limit=min(arguments.limit, 100), **filters), arguments.limit))
    if arguments.json:
        print_json(jobs)
    else:
        print_table(("id", "kind", "status", "phase", "done", "created"), [_row(job) for job in jobs])
    return Exit.DONE


def _row(job: dict[str, Any]) -> tuple[Any, ...]:
    progress = job.get("progress")
    running = job["status"] not in TERMINAL
    done = f"{progress['percent']:.0f} %" if running and progress and progress.get("percent") is not None else None
    return job["id"], job["kind"], job["status"], job["phase"] if running else None, done, job["created_at"]


def _show(arguments: argparse.Namespace) -> int:
    with connect() as client:
        job = watch(client, arguments.job) if arguments.watch else client.job(arguments.job)
    print_json(job) if arguments.json else print_result(job)
    return Exit.FAILED if job["status"] in {"failed", "cancelled"} else Exit.DONE


def _cancel(arguments: argparse.Namespace) -> int:
    with connect() as client:
        job = client.request("POST", f"/v1/jobs/{arguments.job}/cancel").json()
    print_json(job) if arguments.json else print(job["status"])
    return Exit.DONE


def _events(arguments: argparse.Namespace) -> int:
    with connect() as client:
        events = []
        after = arguments.after
        while page := client.get(f"/v1/jobs/{arguments.job}/events", after=after, limit=100)["data"]:
            events += page
            after = page[-1]["seq"]
    if arguments.json:
        print_json(events)
    else:
        rows = [(event["seq"], event["at"], event["type"], event["level"], event["data"]) for event in events]
        print_table(("seq", "at", "type", "level", "data"), rows)
    return Exit.DONE
