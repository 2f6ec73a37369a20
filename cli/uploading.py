"""Sends a large file in parts: a part that breaks is sent again, and a command that broke goes on where it was."""

import base64
import hashlib
import time
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from cli.client import Client
from cli.errors import ApiError, CommandError, UnreachableError
from cli.output import say

IN_PARTS_BYTES = 32 << 20
"""From this size on."""

_TRIES = 6
_PAUSE_S = 1.0  # before the second try; twice as long before each later one
_WORTH_A_TRY = frozenset({408, 429, 500, 502, 503, 504})


def upload_dataset(client: Client, path: Path, *, name: str, modality: str) -> dict[str, Any]:
    """The dataset that the file became. Interrupted, the same call later sends only what is missing."""
    announced = {"name": name, "modality": modality, "size_bytes": path.stat().st_size, "sha256": _sha256(path)}
    upload = _open_one(client, announced) or client.request("POST", "/v1/uploads", json=announced).json()
    received = {part["n"] for part in client.get(f"/v1/uploads/{upload['id']}")["received"]}
    if received:
        say(f"going on with {upload['id']}: {len(received)} of {upload['parts']} parts are there")
    _send_missing(client, path, upload, received)
    try:
        return client.complete_upload(upload["id"])
    except ApiError as error:
        if error.status == 422:  # what is wrong with the file stays wrong
            client.request("DELETE", f"/v1/uploads/{upload['id']}")
        raise


def _open_one(client: Client, announced: dict[str, Any]) -> dict[str, Any] | None:
    """An upload of this very file that an earlier command began, if there is one."""
    for upload in client.pages("/v1/uploads"):
        if upload["status"] == "open" and all(upload[field] == value for field, value in announced.items()):
            return upload
    return None


def _send_missing(client: Client, path: Path, upload: dict[str, Any], received: set[int]) -> None:
    console = Console(stderr=True)
    columns = (BarColumn(bar_width=32), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with (
        path.open("rb") as file,
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar,
    ):
        task = bar.add_task("", total=upload["size_bytes"])
        for n in range(1, upload["parts"] + 1):
            part = _part(file, n, upload["part_bytes"])
            if n not in received:
                _send(client, upload["id"], n, part)
                if not console.is_terminal:
                    say(f"part {n} of {upload['parts']}")
            bar.update(task, advance=len(part))


def _part(file: BinaryIO, n: int, part_bytes: int) -> bytes:
    file.seek((n - 1) * part_bytes)
    return file.read(part_bytes)


def _send(client: Client, upload_id: str, n: int, part: bytes) -> None:
    digest = base64.b64encode(hashlib.sha256(part).digest()).decode()
    headers = {"Content-Digest": f"sha-256=:{digest}:"}
    for tries_left in range(_TRIES - 1, -1, -1):
        try:
            client.request("PUT", f"/v1/uploads/{upload_id}/parts/{n}", content=part, headers=headers)
            return
        except CommandError as error:
            if not tries_left or not _may_pass(error):
                raise
            say(f"part {n} is sent again: {error}")
            time.sleep(_PAUSE_S * 2 ** (_TRIES - 1 - tries_left))


def _may_pass(error: CommandError) -> bool:
    """Whether the same part may arrive another time; a wrong sum means that it was changed on the way."""
    if isinstance(error, ApiError):
        return error.status in _WORTH_A_TRY or error.code == "digest_mismatch"
    return isinstance(error, UnreachableError)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
