"""The adapter as a file: config.json and adapter.safetensors, zipped or in a folder. Torch-free."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mr_core.errors import AdapterError
from mr_core.jobs.outcome import AdapterContent

FORMAT_VERSION = 1
FEATURES: frozenset[str] = frozenset()  # what `required_features` may ask for
CONFIG, WEIGHTS = "config.json", "adapter.safetensors"
MAX_FILE_BYTES = 512 * 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal adapters are equal bytes


def zip_adapter(content: AdapterContent) -> bytes:
    """The adapter.zip of two files; the same bytes for the same content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in ((CONFIG, content.config), (WEIGHTS, content.weights)):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return buffer.getvalue()


def read_adapter(source: Path | bytes) -> AdapterContent:
    """The two files from adapter.zip, its bytes, or the unpacked folder; AdapterError where it is not an adapter."""
    if isinstance(source, Path) and source.is_dir():
        return AdapterContent(config=_from_folder(source, CONFIG), weights=_from_folder(source, WEIGHTS))
    if isinstance(source, Path) and not source.exists():
        raise AdapterError(f"no adapter at {source}: expected adapter.zip or its unpacked folder")
    try:
        with zipfile.ZipFile(source if isinstance(source, Path) else io.BytesIO(source)) as archive:
            return AdapterContent(config=_from_zip(archive, CONFIG), weights=_from_zip(archive, WEIGHTS))
    except (zipfile.BadZipFile, OSError) as error:
        raise AdapterError(f"not an adapter: {error}; expected a zip with {CONFIG} and {WEIGHTS}") from error


def read_config(content: AdapterContent) -> dict[str, Any]:
    """config.json, brought up to this format; AdapterError where it is of a newer one or not a config."""
    try:
        config = json.loads(content.config)
        version = config["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"not an adapter: {CONFIG} is not a JSON object with a format_version") from error
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise AdapterError(f"this adapter has format {version}, this version reads formats 1 to {FORMAT_VERSION}")
    for upgrade in _UPGRADES[version - 1 :]:
        config = upgrade(config)
    unknown = sorted(set(config.get("required_features", [])) - FEATURES)
    if unknown:
        raise AdapterError(f"this adapter requires features that this version lacks: {unknown}")
    return dict(config)


_UPGRADES: list[Callable[[dict[str, Any]], dict[str, Any]]] = []  # the nth brings format n to n + 1


def _from_folder(folder: Path, name: str) -> bytes:
    path = folder / name
    if not path.is_file():
        raise AdapterError(f"not an adapter: {folder} has no {name}")
    return path.read_bytes()


def _from_zip(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        entry = archive.getinfo(name)
    except KeyError as error:
        raise AdapterError(f"not an adapter: the archive has no {name}") from error
    if entry.file_size > MAX_FILE_BYTES:
        raise AdapterError(f"{name} has {entry.file_size} bytes, at most {MAX_FILE_BYTES} are accepted")
    with archive.open(entry) as file:
        return file.read(MAX_FILE_BYTES)
