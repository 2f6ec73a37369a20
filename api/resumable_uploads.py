"""Uploads in parts: each is checked by its own digest, and an interruption costs the part that was under way."""

import base64
import hashlib
import re
import shutil
from collections.abc import AsyncIterator
from typing import IO, Annotated, Literal, cast

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import ClientDisconnect

from api.datasets import Modality, keep_dataset
from api.dependencies import PageOf, Parts, PartsOf, Reader, SessionOf, Writer
from api.errors import InvalidRequest, MalformedBody
from api.responses import DatasetAnswer, ListOf, PartAnswer, UploadAnswer, UploadDetail, list_of
from service import datasets, uploads
from service.blobs import CHUNK_BYTES, BlobWriter
from service.errors import DigestMismatch, NotFound, PayloadTooLarge, StorageUnavailable, UploadCompleted
from service.keys import Caller
from service.models import UploadPart
from service.orphans import delete_orphan

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

MIN_PART_BYTES, MAX_PART_BYTES = 64 << 10, 64 << 20
_PART_BYTES = 16 << 20
_MAX_PARTS = 10_000
_BATCH_BYTES = 1 << 18  # handed to a thread at once, as of a form
_SHA256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?:,|$)")
_BYTES = {"type": "string", "format": "binary"}
_RAW = {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": _BYTES}}}}


class UploadRequest(BaseModel):
    """What will come."""

    model_config = ConfigDict(extra="forbid")

    purpose: Literal["dataset"] = "dataset"
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    modality: Modality = "image"
    size_bytes: int = Field(ge=1, lt=2**63, description="Of the whole file.")
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="Of the whole file, in hexadecimal; checked when it is complete."
    )
    part_bytes: int = Field(
        _PART_BYTES, ge=MIN_PART_BYTES, le=MAX_PART_BYTES, description=f"At most {_MAX_PARTS} parts."
    )


def is_part(path: str) -> bool:
    """Whether a part comes to this path."""
    return path.startswith("/v1/uploads/") and "/parts/" in path


@router.post("", status_code=201)
def create_upload(
    body: UploadRequest, response: Response, session: SessionOf, parts: PartsOf, caller: Writer
) -> UploadAnswer:
    """Begin an upload. It expires where no new part comes for `MR_UPLOAD_EXPIRY_S`."""
    limit = parts.settings.max_upload_bytes
    if body.size_bytes > limit:
        raise PayloadTooLarge(f"the file has {body.size_bytes} bytes, the limit is {limit}", param="size_bytes")
    if -(-body.size_bytes // body.part_bytes) > _MAX_PARTS:
        raise InvalidRequest(
            f"{body.size_bytes} bytes in parts of {body.part_bytes} are more than {_MAX_PARTS} parts",
            param="part_bytes",
        )
    row = uploads.create(
        session,
        parts.settings,
        tenant=caller.tenant,
        purpose=body.purpose,
        name=body.name,
        modality=body.modality,
        size_bytes=body.size_bytes,
        part_bytes=body.part_bytes,
        file_digest=body.sha256,
    )
    response.headers["Location"] = f"/v1/uploads/{row.id}"
    return UploadAnswer.of(row)


@router.get("")
def list_uploads(session: SessionOf, caller: Reader, page: PageOf) -> ListOf[UploadAnswer]:
    """The tenant's uploads, newest first; complete ones until they expire."""
    rows, has_more = uploads.list_uploads(session, caller.tenant, after=page.after, limit=page.limit)
    return list_of(rows, UploadAnswer.of, has_more=has_more)


@router.get("/{upload_id}")
def read_upload(upload_id: str, session: SessionOf, caller: Reader) -> UploadDetail:
    """An upload, and which parts are there."""
    row = uploads.get(session, caller.tenant, upload_id)
    return UploadDetail.with_parts(row, uploads.parts_of(session, row.id))


@router.put("/{upload_id}/parts/{n}", openapi_extra=_RAW)
async def put_part(
    request: Request,
    upload_id: str,
    n: int,
    parts: PartsOf,
    caller: Writer,
    content_digest: Annotated[str | None, Header(description="`sha-256=:<base64>:` of the part (RFC 9530).")] = None,
) -> PartAnswer:
    """Send a part, in any order; sent again with the same bytes, it changes nothing."""
    size_bytes, known = await run_sync(_expected, parts, caller, upload_id, n)
    digest = _announced(content_digest)
    with parts.blobs.writer() as writer:
        # A part that is there already is read and compared, but not written again.
        received = _Received(size_bytes, writer if known is None else None)
        async for batch in _batches(request):
            await run_sync(received.write, batch)
        received.check(digest)
        return await run_sync(_keep_part, parts, caller, upload_id, n, received, known)


@router.post("/{upload_id}/complete", status_code=201)
def complete_upload(upload_id: str, response: Response, parts: PartsOf, caller: Writer) -> DatasetAnswer:
    """Make the parts one file, and the file what it was uploaded for: as `POST /v1/datasets` does with it.

    Asked again, it answers with the same dataset. A refusal leaves the upload as it is.
    """
    answer = _complete(parts, caller, upload_id)
    response.headers["Location"] = f"/v1/datasets/{answer.id}"
    return answer


@router.delete("/{upload_id}", status_code=204)
def delete_upload(upload_id: str, parts: PartsOf, caller: Writer) -> None:
    """Give an upload up, with the parts that are there. What a complete one has become stays."""
    with parts.database.session() as session:
        held = uploads.delete(session, caller.tenant, upload_id)
    uploads.drop(parts.database, parts.blobs, held)


class _Received:
    """A part as it comes: counted, hashed, and written where it is to be kept."""

    def __init__(self, expected_bytes: int, writer: BlobWriter | None) -> None:
        self.size_bytes = 0
        self.writer = writer
        self._expected_bytes = expected_bytes
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, content: bytes) -> None:
        self.size_bytes += len(content)
        if self.size_bytes > self._expected_bytes:
            return  # read to its end, so that the client comes to read the answer
        self._digest.update(content)
        if self.writer is not None:
            self.writer.write(content)

    def check(self, sha256: str) -> None:
        """PayloadTooLarge, InvalidRequest or DigestMismatch where it is not what was to come."""
        found = f"the part has {self.size_bytes} bytes, expected {self._expected_bytes}"
        if self.size_bytes > self._expected_bytes:
            raise PayloadTooLarge(found)
        if self.size_bytes < self._expected_bytes:
            raise InvalidRequest(found)
        if self.sha256 != sha256:
            raise DigestMismatch(
                f"the part has the SHA-256 {self.sha256}, its Content-Digest says {sha256}", param="Content-Digest"
            )


def _expected(parts: Parts, caller: Caller, upload_id: str, n: int) -> tuple[int, UploadPart | None]:
    """How many bytes the part has to have, and the part if it is there already."""
    with parts.database.session() as session:
        upload = uploads.get(session, caller.tenant, upload_id)
        size_bytes = uploads.part_size(upload, n)
        if upload.dataset_id is not None:
            raise UploadCompleted(f"{upload_id} is complete: it has become {upload.dataset_id}")
        return size_bytes, session.get(UploadPart, (upload_id, n))


def _announced(content_digest: str | None) -> str:
    """The SHA-256 of a Content-Digest, in hexadecimal."""
    match = _SHA256.search(content_digest or "")
    if match is None:
        raise InvalidRequest(
            f"the header Content-Digest is {'missing' if content_digest is None else repr(content_digest[:80])}; "
            "expected sha-256=:<base64 of the SHA-256 of the part>:",
            param="Content-Digest",
        )
    return base64.b64decode(match[1]).hex()


async def _batches(request: Request) -> AsyncIterator[bytes]:
    gathered = bytearray()
    try:
        async for chunk in request.stream():
            gathered += chunk
            if len(gathered) >= _BATCH_BYTES:
                yield bytes(gathered)
                gathered.clear()
    except ClientDisconnect as error:
        raise MalformedBody("the client went away before the part was complete") from error
    yield bytes(gathered)


def _keep_part(
    parts: Parts, caller: Caller, upload_id: str, n: int, received: _Received, known: UploadPart | None
) -> PartAnswer:
    answer = PartAnswer(n=n, size_bytes=received.size_bytes, sha256=received.sha256)
    if known is not None or received.writer is None:
        assert known is not None
        uploads.require_same(known, received.sha256)
        return answer
    blob = received.writer.commit()
    try:
        with parts.database.session() as session:
            uploads.add_part(session, caller.tenant, upload_id, n, blob, expiry_s=parts.settings.upload_expiry_s)
    except Exception:
        delete_orphan(parts.database, parts.blobs, blob.sha256)
        raise
    return answer


def _complete(parts: Parts, caller: Caller, upload_id: str) -> DatasetAnswer:
    with parts.database.session() as session:
        upload = uploads.get(session, caller.tenant, upload_id)
        if upload.dataset_id is not None:
            return DatasetAnswer.of(datasets.get(session, caller.tenant, upload.dataset_id))
        pieces = [part.sha256 for part in uploads.require_complete(session, upload)]
    with parts.blobs.writer() as writer:
        try:
            for sha256 in pieces:
                with parts.blobs.open(sha256) as source:
                    shutil.copyfileobj(source, cast("IO[bytes]", writer), CHUNK_BYTES)
        except (NotFound, StorageUnavailable):  # another request has completed or deleted it meanwhile
            with parts.database.session() as session:
                done = uploads.get(session, caller.tenant, upload_id).dataset_id
                if done is None:
                    raise
                return DatasetAnswer.of(datasets.get(session, caller.tenant, done))
        if upload.file_digest not in (None, writer.sha256):
            raise DigestMismatch(
                f"the file has the SHA-256 {writer.sha256}, announced was {upload.file_digest}", param="sha256"
            )
        answer = keep_dataset(parts, caller, writer, name=upload.name, modality=upload.modality, upload_id=upload_id)
    uploads.drop(parts.database, parts.blobs, pieces)
    return answer
