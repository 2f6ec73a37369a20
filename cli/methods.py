"""The menu of methods, as the service tells it."""

import argparse

from cli.client import connect
from cli.errors import Exit
from cli.output import print_json, print_table


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the raw answer, and nothing else, on stdout")
    parser.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> int:
    with connect() as client:
        methods = client.get("/v1/methods")
    if arguments.json:
        print_json(methods)
        return Exit.DONE
    rows = [(family, row["kind"], row["summary"]) for family, members in methods.items() for row in members]
    print_table(("family", "kind", "summary"), rows)
    return Exit.DONE
