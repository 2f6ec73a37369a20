"""Adapters: list, download, import, name."""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cli.client import connect
from cli.errors import CommandError, Exit
from cli.output import accuracy, percent, print_json, print_table, say


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="adapters, newest first")
    listing.add_argument("--limit", type=int, default=50)
    listing.add_argument("--json", action="store_true", help="print the raw answer, and nothing else, on stdout")
    listing.set_defaults(run=_list)
    download = actions.add_parser("download", help="write adapter.zip")
    download.add_argument("adapter", metavar="ID", help="or an alias")
    download.add_argument("-o", "--output", type=Path, default=Path("adapter.zip"))
    download.set_defaults(run=_download)
    importing = actions.add_parser("import", help="give the service an adapter.zip, from it or another one")
    importing.add_argument("path", type=Path, metavar="PATH", help="adapter.zip")
    alias = actions.add_parser("alias", help="name an adapter, or move the name to it")
    alias.add_argument("name", metavar="NAME")
    alias.add_argument("adapter", metavar="ID", nargs="?")
    alias.add_argument("--delete", action="store_true", help="forget the name")
    aliases = actions.add_parser("aliases", help="names and the adapters they lead to")
    for action, run in ((importing, _import), (alias, _alias), (aliases, _aliases)):
        action.add_argument("--json", action="store_true", help="print the raw answer, and nothing else, on stdout")
        action.set_defaults(run=run)


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


def _import(arguments: argparse.Namespace) -> int:
    path: Path = arguments.path
    with connect() as client, path.open("rb") as file:
        adapter = client.upload("/v1/adapters", file, path.name, {})
    if arguments.json:
        print_json(adapter)
    else:
        print_table(("id", "backbone", "classes"), [(adapter["id"], adapter["backbone"], len(adapter["classes"]))])
    return Exit.DONE


def _alias(arguments: argparse.Namespace) -> int:
    if (arguments.adapter is None) is not arguments.delete:
        raise CommandError("give the ID that the name leads to, or --delete to forget the name")
    path = f"/v1/adapters/aliases/{quote(arguments.name, safe='')}"
    with connect() as client:
        if arguments.delete:
            client.request("DELETE", path)
            answer = {"name": arguments.name, "deleted": True}
        else:
            answer = client.request("PUT", path, json={"adapter": arguments.adapter}).json()
    if arguments.json:
        print_json(answer)
    elif not arguments.delete:
        _print_aliases([answer])
    return Exit.DONE


def _aliases(arguments: argparse.Namespace) -> int:
    with connect() as client:
        aliases = client.get("/v1/adapters/aliases")["data"]
    if arguments.json:
        print_json(aliases)
    else:
        _print_aliases(aliases)
    return Exit.DONE


def _print_aliases(aliases: list[dict[str, Any]]) -> None:
    print_table(("name", "adapter", "moved"), [(row["name"], row["adapter"], row["updated_at"]) for row in aliases])
