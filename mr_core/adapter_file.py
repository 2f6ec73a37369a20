"""The adapter as a file: config.json and adapter.safetensors, zipped or in a folder. Torch-free."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mr_core.backbones.description import BackboneDescription, Preprocessing
from mr_core.errors import AdapterError, AdapterTooNew
from mr_core.jobs.outcome import AdapterContent
from mr_core.jobs.reprogram.spec import ReprogramSpec

FORMAT_VERSION = 1
SOURCE_HEAD = "source_head"  # a head of the adapter's own on the backbone's embedding
FEATURES = frozenset({SOURCE_HEAD})  # what `required_features` may ask for
CONFIG, WEIGHTS = "config.json", "adapter.safetensors"
MAX_FILE_BYTES = 512 * 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal adapters are equal bytes


@dataclass(frozen=True)
class AdapterConfig:
    """config.json understood: how the adapter was made, what it tells apart, and the backbone that it stands on."""

    spec: ReprogramSpec
    classes: tuple[str, ...]
    backbone: BackboneDescription
    backbone_state_sha256: str


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
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AdapterError(f"not an adapter: {CONFIG} is not a JSON object with a format_version") from error
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        refusal = AdapterTooNew if type(version) is int and version > FORMAT_VERSION else AdapterError
        raise refusal(f"this adapter has format {version!r}, this version reads formats 1 to {FORMAT_VERSION}")
    for upgrade in _UPGRADES[version - 1 :]:
        config = upgrade(config)
    required = config.get("required_features", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise AdapterError(f"not an adapter: required_features in {CONFIG} is not a list of names")
    unknown = sorted(set(required) - FEATURES)
    if unknown:
        raise AdapterTooNew(f"this adapter requires features that this version lacks: {unknown}")
    return dict(config)


def interpret(config: dict[str, Any]) -> AdapterConfig:
    """What `read_config` gave, as the classes that it was written from; AdapterError where it does not fit them."""
    try:
        fields = {name: value for name, value in config["backbone"].items() if name != "state_sha256"}
        return AdapterConfig(
            spec=ReprogramSpec.model_validate(config["spec"]),
            classes=tuple(str(name) for name in config["classes"]),
            backbone=BackboneDescription.model_validate(
                fields | {"preprocessing": Preprocessing.model_validate(config["preprocessing"])}
            ),
            backbone_state_sha256=str(config["backbone"]["state_sha256"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdapterError(f"the adapter is damaged: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """Of pydantic's errors the first fault with its place, of others what was missed."""
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{error.title}, {'.'.join(map(str, fault['loc'])) or 'as a whole'}: {fault['msg']}"
    return f"{CONFIG} has no {error}" if isinstance(error, KeyError) else str(error)


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
