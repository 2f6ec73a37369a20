"""Adapters: list and download."""

import argparse
from itertools import islice
from pathlib import Path

from cli.client import connect
from cli.errors import Exit
from cli.output import accuracy, percent, print_json, print_table, say


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="adapters, newest first")
    listing.add_argument("--limit", type=int, default=50)
    listing.add_argument("--json", action="store_true", help="print the raw answer, and nothing else, on stdout")
    listing.set_defaults(run=_list)
    download = actions.add_parser("download", help="write adapter.zip")
    download.add_argument("adapter", metavar="ID")
    download.add_argument("-o", "--output", type=Path, default=Path("adapter.zip"))
    download.set_defaults(run=_download)


def _list(arguments: argparse.Namespace) -> int:
    with connect() as client:
        adapters = list(islice(client.pages("/v1/adapters", limit=min(arguments.limit, 100)), arguments.limit))
    if arguments.json:
        print_json(adapters)
        return Exit.DONE
    rows = [
        (
            row["id"],
            row["backbone"],
            percent(accuracy(row["config"].get("metrics"), "test")),
            row["size_bytes"],
            row["created_at"],
        )
        for row in adapters
    ]
    print_table(("id", "backbone", "test accuracy", "bytes", "created"), rows)
    return Exit.DONE


def _download(arguments: argparse.Namespace) -> int:
    with connect() as client:
        size = client.download(f"/v1/adapters/{arguments.adapter}/content", arguments.output)
    say(f"{arguments.output}: {size} bytes")
    return Exit.DONE
