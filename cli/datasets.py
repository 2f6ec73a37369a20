"""Datasets: list, upload, show, delete."""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

from cli import uploading
from cli.client import Client, connect
from cli.errors import Exit
from cli.output import print_json, print_table, say


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="datasets, newest first")
    listing.add_argument("--limit", type=int, default=50)
    upload = actions.add_parser("upload", help="upload an archive, in parts if large, and wait for its validation")
    upload.add_argument("path", type=Path, metavar="PATH", help="zip, tar.gz, npz or parquet of labelled images")
    upload.add_argument("--name", help="default: the file's name")
    upload.add_argument("--modality", default="image")
    upload.add_argument("--no-wait", action="store_true", help="return before the validation has ended")
    show = actions.add_parser("show", help="a dataset with its report")
    delete = actions.add_parser("delete", help="delete a dataset")
    for action, run in ((listing, _list), (upload, _upload), (show, _show), (delete, _delete)):
        action.add_argument("--json", action="store_true", help="print the raw answer, and nothing else, on stdout")
        action.set_defaults(run=run)
    for action in (show, delete):
        action.add_argument("dataset", metavar="ID")


def _list(arguments: argparse.Namespace) -> int:
    with connect() as client:
        datasets = list(islice(client.pages("/v1/datasets", limit=min(arguments.limit, 100)), arguments.limit))
    if arguments.json:
        print_json(datasets)
    else:
        rows = [(row["id"], row["name"], row["status"], len(row["classes"]), row["created_at"]) for row in datasets]
        print_table(("id", "name", "status", "classes", "created"), rows)
    return Exit.DONE


def _upload(arguments: argparse.Namespace) -> int:
    path: Path = arguments.path
    with connect() as client:
        dataset = _send(client, path, {"name": arguments.name or path.name, "modality": arguments.modality})
        if not arguments.no_wait:
            say(f"dataset {dataset['id']}: validating")
            dataset = client.wait_for_dataset(dataset["id"])
    _print(dataset, arguments)
    return Exit.FAILED if dataset["status"] == "invalid" else Exit.DONE


def _send(client: Client, path: Path, form: dict[str, str]) -> dict[str, Any]:
    """In parts where the file is large, otherwise at once."""
    if path.stat().st_size < uploading.IN_PARTS_BYTES:
        with path.open("rb") as file:
            return client.upload("/v1/datasets", file, path.name, form)
    return uploading.upload_dataset(client, path, name=form["name"], modality=form["modality"])


def _show(arguments: argparse.Namespace) -> int:
    with connect() as client:
        dataset = client.get(f"/v1/datasets/{arguments.dataset}")
    _print(dataset, arguments)
    return Exit.DONE


def _delete(arguments: argparse.Namespace) -> int:
    with connect() as client:
        client.request("DELETE", f"/v1/datasets/{arguments.dataset}")
    if arguments.json:
        print_json({"id": arguments.dataset, "deleted": True})
    return Exit.DONE


def _print(dataset: dict[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json(dataset)
        return
    if dataset.get("error"):
        say(f"{dataset['error'].get('code')}: {dataset['error'].get('detail')}")
    splits = ", ".join(f"{count} {split}" for split, count in dataset["splits"].items())
    rows = [(dataset["id"], dataset["status"], len(dataset["classes"]), splits or None)]
    print_table(("id", "status", "classes", "images"), rows)
