"""Submit a job: from a file, or from flags."""

import argparse
from collections.abc import Mapping
from typing import Any

from cli.client import Client, connect
from cli.errors import Exit
from cli.output import print_json, print_result, say
from cli.spec_flags import add_spec_flags, read_spec, spec_from_flags
from cli.watching import watch


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """`submit SPEC.json`, and a command a job kind whose flags build the spec."""
    parser.add_argument("--json", action="store_true", help="print the raw answer, and nothing else, on stdout")
    parser.add_argument("--dry-run", action="store_true", help="validate only")
    if name == "submit":
        parser.add_argument("spec", metavar="SPEC.json", help="a job spec; - reads standard input")
        parser.add_argument("--watch", action="store_true", help="follow the job to its end; Ctrl-C cancels it")
        parser.set_defaults(run=_submit_file)
        return
    from mr_core.jobs import JOB_KINDS

    kind = name.replace("-", "_")
    spec = JOB_KINDS[kind]
    parser.add_argument(
        "--watch",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="follow the job to its end; Ctrl-C cancels it",
    )
    add_spec_flags(parser, spec)
    parser.set_defaults(run=lambda arguments: _submit(spec_from_flags(kind, spec, arguments), arguments))


def _submit_file(arguments: argparse.Namespace) -> int:
    return _submit(read_spec(arguments.spec), arguments)


def _submit(spec: Mapping[str, Any], arguments: argparse.Namespace) -> int:
    with connect() as client:
        answer = client.submit(spec, dry_run=arguments.dry_run)
        if arguments.dry_run:
            print_json(answer) if arguments.json else print("valid")
            return Exit.DONE
        return _follow(client, answer, arguments)


def _follow(client: Client, job: dict[str, Any], arguments: argparse.Namespace) -> int:
    if arguments.watch:
        say(f"job {job['id']}")
        job = watch(client, job["id"])
    if arguments.json:
        print_json(job)
    elif not arguments.watch:
        print(job["id"])
    else:
        print_result(job)
    ended_badly = arguments.watch and job["status"] != "succeeded"
    return Exit.FAILED if ended_badly else Exit.DONE
