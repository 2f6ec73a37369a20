"""kombu's filesystem transport, with messages that appear whole.

kombu creates a message's file and then fills it; a worker that polls in between takes an empty message, which ends its
consumer. Here the file is filled under a name that nobody looks for and then renamed. Nothing else is changed.
"""

import json
import time
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem

FOLDER_SCHEME: Final = "folder"
"""Scheme of a broker URL; the folders are in the transport's options, as kombu names them."""

TRANSPORT_ALIASES[FOLDER_SCHEME] = f"{__name__}:FolderTransport"


class FolderChannel(filesystem.Channel):
    """Renames messages into place."""

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]  # kombu's own two disagree
        folder = Path(self.data_folder_out)
        name = f"{round(time.monotonic() * 1000)}_{uuid4()}.{queue}.msg"
        unfinished = folder / f"{name}.new"
        try:
            unfinished.write_text(json.dumps(payload))
            unfinished.replace(folder / name)
        except OSError as error:
            raise ChannelError(f"cannot add {name} to {folder}: {error}") from error


class FolderTransport(filesystem.Transport):
    """The transport of that channel."""

    Channel = FolderChannel
