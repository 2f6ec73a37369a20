"""Adapters: read, download, delete."""

from functools import partial

from fastapi import APIRouter, Request, Response

from api.content import content_response
from api.dependencies import PageOf, PartsOf, Reader, SessionOf, Writer
from api.responses import AdapterAnswer, ListOf, list_of
from api.results import read_blob
from service import adapters

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])

_ZIP = "application/zip"


@router.get("")
def list_adapters(session: SessionOf, caller: Reader, page: PageOf) -> ListOf[AdapterAnswer]:
    """The tenant's adapters, newest first."""
    rows, has_more = adapters.list_adapters(session, caller.tenant, after=page.after, limit=page.limit)
    return list_of(rows, AdapterAnswer.of, has_more=has_more)


@router.get("/{adapter_id}")
def read_adapter(adapter_id: str, session: SessionOf, caller: Reader) -> AdapterAnswer:
    """An adapter and its config.json."""
    return AdapterAnswer.of(adapters.get(session, caller.tenant, adapter_id))


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
    row = adapters.get(session, caller.tenant, adapter_id)
    return content_response(
        request,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        media_type=_ZIP,
        read=partial(read_blob, parts, row.sha256),
        filename=f"{row.id}.zip",
    )


@router.delete("/{adapter_id}", status_code=204)
def delete_adapter(adapter_id: str, session: SessionOf, caller: Writer) -> None:
    """Forget an adapter; copies that were downloaded go on working."""
    adapters.delete(session, caller.tenant, adapter_id)
