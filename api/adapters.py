"""Adapters: import, read, download, delete."""

from functools import partial

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from api.content import content_response
from api.datasets import LimitedSink, form_schema, room_for
from api.dependencies import PageOf, Parts, PartsOf, Reader, SessionOf, Writer
from api.errors import InvalidRequest
from api.responses import AdapterAnswer, ListOf, list_of
from api.results import read_blob
from api.uploads import read_form
from mr_core.errors import ReprogrammingError
from service import adapters
from service.blobs import LARGEST_IN_DATABASE_BYTES as MAX_BYTES
from service.blobs import BlobWriter
from service.keys import Caller
from service.quotas import lock_quota, require_room

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])

_ZIP = "application/zip"


class AdapterForm(BaseModel):
    """The form of an import."""

    file: bytes = Field(
        description="adapter.zip: config.json and adapter.safetensors.", json_schema_extra={"format": "binary"}
    )


@router.post("", status_code=201, openapi_extra=form_schema(AdapterForm), responses={200: {"model": AdapterAnswer}})
async def import_adapter(request: Request, response: Response, parts: PartsOf, caller: Writer) -> AdapterAnswer:
    """Import an adapter, from this service or another. The very bytes again give the adapter that is there, and 200.

    Weights that it was trained around and that were uploaded have to be registered here before.
    """
    room = await run_sync(room_for, parts, caller, "adapters")
    with parts.blobs.writer() as writer:
        sink = LimitedSink(writer, MAX_BYTES, room)
        form = await read_form(request, files={"file": lambda _: sink})
        if "file" not in form.files:
            raise InvalidRequest("the form field file is missing", param="file")
        answer, is_new = await run_sync(_keep_import, parts, caller, writer)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/adapters/{answer.id}"
    return answer


def _keep_import(parts: Parts, caller: Caller, writer: BlobWriter) -> tuple[AdapterAnswer, bool]:
    from api.adapter_import import read_import, require_backbone  # Pillow, which the gateway starts without

    try:
        with writer.local_path() as path:
            config, understood = read_import(path)
            content = path.read_bytes()
        with parts.database.session() as session:
            require_backbone(session, caller.tenant, understood.backbone)
            lock_quota(session, caller.tenant)
            known = adapters.with_content(session, caller.tenant, writer.sha256)
            if known is not None:
                return AdapterAnswer.of(known), False
            require_room(session, caller.tenant, "adapters", parts.settings, size_bytes=len(content))
            row = adapters.create(
                session,
                tenant=caller.tenant,
                job_id=None,
                sha256=parts.blobs.put_bytes(session, content),
                size_bytes=len(content),
                config=config,
            )
            return AdapterAnswer.of(row), True
    except ReprogrammingError as error:
        error.param = error.param or "file"
        raise


@router.get("")
def list_adapters(session: SessionOf, caller: Reader, page: PageOf) -> ListOf[AdapterAnswer]:
    """The tenant's adapters, newest first."""
    rows, has_more = adapters.list_adapters(session, caller.tenant, after=page.after, limit=page.limit)
    return list_of(rows, AdapterAnswer.of, has_more=has_more)


@router.get("/{adapter_id}")
def read_adapter(adapter_id: str, session: SessionOf, caller: Reader) -> AdapterAnswer:
    """An adapter, by its id or an alias, and its config.json."""
    return AdapterAnswer.of(adapters.find(session, caller.tenant, adapter_id))


@router.head("/{adapter_id}/content", include_in_schema=False)
@router.get(
    "/{adapter_id}/content",
    response_class=Response,
    responses={
        200: {"content": {_ZIP: {}}},
        206: {"description": "The range asked for."},
        304: {"description": "The client has it: bytes of an adapter never change."},
    },
)
def read_adapter_content(
    request: Request, adapter_id: str, session: SessionOf, parts: PartsOf, caller: Reader
) -> Response:
    """adapter.zip: config.json and adapter.safetensors. The ETag is its SHA-256."""
    row = adapters.find(session, caller.tenant, adapter_id)
    answer = content_response(
        request,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        media_type=_ZIP,
        read=partial(read_blob, parts, row.sha256),
        filename=f"{row.id}.zip",
    )
    if adapter_id != row.id:
        answer.headers["Cache-Control"] = "private, no-cache"  # an alias may lead elsewhere tomorrow
    return answer


@router.delete("/{adapter_id}", status_code=204)
def delete_adapter(adapter_id: str, session: SessionOf, caller: Writer) -> None:
    """Forget an adapter; 409 while an alias leads to it. Copies that were downloaded go on working."""
    adapters.delete(session, caller.tenant, adapter_id)
