"""Source models: list and register."""

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

from cli.client import connect
from cli.errors import CommandError, Exit
from cli.output import print_json, print_table

_JSON_FIELDS = ("arguments", "model_config", "preprocessing", "classes")
_OF_REMOTE = {
    "remote": "url, protocol, answer and what else says how it is asked",
    "classes": "names of its classes",
    "preprocessing": "size, mean and std of what is sent",
}


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="registered and built-in source models")
    listing.add_argument("--limit", type=int, default=50)
    listing.set_defaults(run=_list)
    register = actions.add_parser("register", help="upload the weights of a source model")
    register.add_argument("path", type=Path, metavar="WEIGHTS.safetensors")
    register.add_argument("--name", help="default: the file's name")
    register.add_argument("--library", required=True, choices=["timm", "open_clip", "torchvision", "builtin"])
    register.add_argument("--architecture", required=True)
    for field in _JSON_FIELDS:
        register.add_argument(f"--{field.replace('_', '-')}", metavar="JSON", help="JSON, or @FILE with JSON in it")
    register.set_defaults(run=_register)
    remote = actions.add_parser("remote", help="register a model that only answers over HTTP")
    remote.add_argument("name", help="its id is then remote:NAME")
    for field, told in _OF_REMOTE.items():
        remote.add_argument(f"--{field}", required=True, metavar="JSON", help=f"{told}; JSON, or @FILE with JSON in it")
    remote.set_defaults(run=_remote)
    for action in (listing, register, remote):
        action.add_argument("--json", action="store_true", help="print the raw answer, and nothing else, on stdout")


def _list(arguments: argparse.Namespace) -> int:
    with connect() as client:
        if arguments.json:
            print_json(client.get("/v1/backbones", limit=arguments.limit))
            return Exit.DONE
        builtin = client.get("/v1/backbones", limit=1)["builtin"]
        _print([*builtin, *islice(client.pages("/v1/backbones", limit=min(arguments.limit, 100)), arguments.limit)])
    return Exit.DONE


def _register(arguments: argparse.Namespace) -> int:
    path: Path = arguments.path
    form = {"name": arguments.name or path.stem, "library": arguments.library, "architecture": arguments.architecture}
    form |= {field: _json(field, value) for field in _JSON_FIELDS if (value := getattr(arguments, field)) is not None}
    with connect() as client, path.open("rb") as file:
        backbone = client.upload("/v1/backbones", file, path.name, form)
    print_json(backbone) if arguments.json else _print([backbone])
    return Exit.DONE


def _remote(arguments: argparse.Namespace) -> int:
    form = {field: _json(field, getattr(arguments, field)) for field in _OF_REMOTE}
    with connect() as client:
        backbone = client.send_form("/v1/backbones", {"name": arguments.name, "library": "remote", **form})
    print_json(backbone) if arguments.json else _print([backbone])
    return Exit.DONE


def _json(field: str, value: str) -> str:
    text = Path(value[1:]).read_text(encoding="utf-8") if value.startswith("@") else value
    try:
        return json.dumps(json.loads(text))
    except ValueError as error:
        raise CommandError(f"--{field.replace('_', '-')} is not JSON: {error}") from error


def _print(backbones: list[dict[str, Any]]) -> None:
    rows = [
        (
            row["id"],
            row.get("name"),
            row.get("parameters"),
            outputs.get("labels"),
            outputs.get("embedding"),
            outputs.get("text"),
        )
        for row in backbones
        for outputs in [row.get("outputs") or {}]
    ]
    print_table(("id", "name", "parameters", "labels", "embedding", "text"), rows)
