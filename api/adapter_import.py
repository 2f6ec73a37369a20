"""Looks at an adapter.zip from elsewhere, without torch: what it is, what it needs, and that nothing else is in it.

Whether the tensors are those of the spec shows when the adapter is first used.
"""

import io
import json
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy.orm import Session

from api.safetensors_header import check_stream
from mr_core.adapter_file import CONFIG, WEIGHTS, AdapterConfig, interpret, read_config
from mr_core.backbones.description import BackboneDescription
from mr_core.backbones.remote.description import remote_sha256
from mr_core.datasets.images import describe_bytes
from mr_core.datasets.limits import ArchiveLimits
from mr_core.datasets.members import named
from mr_core.datasets.zip_reader import ZipReader
from mr_core.errors import AdapterError, BackboneError
from mr_core.jobs.outcome import AdapterContent
from service import backbones
from service.blobs import LARGEST_IN_DATABASE_BYTES
from service.errors import NotFound

MAX_BYTES = LARGEST_IN_DATABASE_BYTES
_CONFIG_BYTES = 8 << 20
_MAX_CLASSES = 10_000
_LIMITS = ArchiveLimits(entries=16, entry_bytes=MAX_BYTES, unpacked_bytes=2 * MAX_BYTES)


def read_import(path: Path) -> tuple[dict[str, Any], AdapterConfig]:
    """config.json as it is, and as it was understood.

    AdapterError (AdapterTooNew for a later format) saying what is wrong with it, ArchiveError for an unsafe zip.
    """
    content = _content(path)
    understood = interpret(read_config(content))
    n_classes = len(understood.classes)
    if not 2 <= n_classes <= _MAX_CLASSES or len(set(understood.classes)) != n_classes:
        raise AdapterError(f"the adapter has {n_classes} classes; expected 2 to {_MAX_CLASSES} different names")
    try:
        check_stream(io.BytesIO(content.weights), len(content.weights))
    except BackboneError as error:
        raise AdapterError(f"{WEIGHTS} is {error.detail}") from error
    return json.loads(content.config, parse_constant=_refuse_constant), understood


def require_backbone(session: Session, tenant: str, backbone: BackboneDescription) -> None:
    """BackboneError where the adapter stands on uploaded weights that the tenant has not registered."""
    if backbone.library == "remote":
        _require_remote(session, tenant, backbone)
        return
    if backbone.random_seed is not None or backbone.pretrained is not None:
        return
    if backbone.sha256 is None or not backbones.has_weights(session, tenant, backbone.sha256):
        raise BackboneError(
            f"the adapter was trained around {backbone.id} ({backbone.library} {backbone.architecture}), whose weights "
            f"have the SHA-256 {backbone.sha256} and are not registered here: register them first (POST /v1/backbones)",
            param="file",
        )


def _require_remote(session: Session, tenant: str, backbone: BackboneDescription) -> None:
    try:
        row = backbones.get(session, tenant, backbone.id)
        is_the_same = row.sha256 == remote_sha256(backbone)
    except (NotFound, ValueError):
        is_the_same = False
    if not is_the_same:
        raise BackboneError(
            f"the adapter was trained around {backbone.id}, and no remote model of that name that is asked in the same "
            "way is registered here: register it first (POST /v1/backbones)",
            param="file",
        )


def _content(path: Path) -> AdapterContent:
    with path.open("rb") as file:
        head = file.read(512)
    if not head.startswith(b"PK"):
        raise AdapterError(f"not an adapter: it is {describe_bytes(head)}; expected a zip with {CONFIG} and {WEIGHTS}")
    archive = ZipReader(path, _LIMITS)
    sizes = {member.name: member.n_bytes for member in archive.members()}
    if set(sizes) != {CONFIG, WEIGHTS}:
        raise AdapterError(
            f"not an adapter: the zip holds {named(sorted(sizes)) or 'nothing'}; expected {CONFIG} and {WEIGHTS} alone"
        )
    for name, limit in ((CONFIG, _CONFIG_BYTES), (WEIGHTS, MAX_BYTES)):
        if sizes[name] > limit:
            raise AdapterError(f"{name} has {sizes[name]} bytes, at most {limit} are accepted")
    return AdapterContent(config=_read(archive, CONFIG), weights=_read(archive, WEIGHTS))


def _read(archive: ZipReader, name: str) -> bytes:
    with archive.stream(name) as pieces:
        return b"".join(pieces)


def _refuse_constant(name: str) -> NoReturn:
    raise AdapterError(f"{CONFIG} holds {name}, which is not JSON")
