"""Datasets: uploaded as archives, looked at here, decoded and validated by a worker."""

from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from api.dependencies import PageOf, Parts, PartsOf, Reader, SessionOf, Writer
from api.errors import InvalidRequest
from api.responses import DatasetAnswer, ListOf, list_of
from api.uploads import Form, read_form
from mr_core.errors import ReprogrammingError
from service import datasets, uploads
from service.blobs import BlobWriter
from service.errors import NotFound, PayloadTooLarge, QuotaExceeded
from service.keys import Caller
from service.orphans import delete_orphan
from service.quotas import Kept, Room, require_room, take_room

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

Modality = Literal["image"]
_NAME: TypeAdapter[str] = TypeAdapter(
    Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
)


class DatasetForm(BaseModel):
    """The form of an upload."""

    file: bytes = Field(
        description="zip, tar or tar.gz with train/<class>/ and test/<class>/, or <class>/ alone; npz with "
        "x_train, y_train[, x_test, y_test]; or parquet with image and label, alone or in a zip.",
        json_schema_extra={"type": "string", "format": "binary"},
    )
    name: str = Field(min_length=1, max_length=200)
    modality: Modality = "image"


def form_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI request body of a form that `read_form` reads as it comes."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


class LimitedSink:
    """Passes on at most `limit` bytes, and no more than the tenant has room for."""

    def __init__(self, writer: BlobWriter, limit: int, room: Room) -> None:
        self._writer, self._limit, self._room = writer, limit, room

    def write(self, content: bytes) -> None:
        size_bytes = self._writer.size_bytes + len(content)
        if size_bytes > self._limit:
            raise PayloadTooLarge(f"the file has more than {self._limit} bytes", param="file")
        self._room.require(size_bytes)
        self._writer.write(content)


def room_for(parts: Parts, caller: Caller, kept: Kept) -> Room:
    """What the caller may still upload; QuotaExceeded where that is nothing."""
    with parts.database.session() as session:
        return require_room(session, caller.tenant, kept, parts.settings)


@router.post("", status_code=201, openapi_extra=form_schema(DatasetForm))
async def create_dataset(request: Request, response: Response, parts: PartsOf, caller: Writer) -> DatasetAnswer:
    """Upload an archive. What its names, directory and sizes show to be wrong is refused here, and nothing is kept."""
    room = await run_sync(room_for, parts, caller, "datasets")
    with parts.blobs.writer() as writer:
        sink = LimitedSink(writer, parts.settings.max_upload_bytes, room)
        form = await read_form(request, files={"file": lambda _: sink}, texts={"name", "modality"})
        name, modality = _fields(form)
        answer = await run_sync(lambda: keep_dataset(parts, caller, writer, name=name, modality=modality))
    response.headers["Location"] = f"/v1/datasets/{answer.id}"
    return answer


def keep_dataset(
    parts: Parts, caller: Caller, writer: BlobWriter, *, name: str, modality: str, upload_id: str | None = None
) -> DatasetAnswer:
    """The dataset of what was written, which was refused where it cannot be one; nothing is kept then.

    With `upload_id`, the dataset that a resumable upload becomes: the one it has become, where another was quicker.
    """
    from mr_core.datasets.archive import check_archive  # numpy and Pillow, which the gateway starts without

    try:
        with writer.local_path() as path:
            check_archive(path)
    except ReprogrammingError as error:
        error.param = error.param or "file"
        raise
    blob = writer.commit()
    try:
        with parts.database.session() as session:
            upload = uploads.hold(session, caller.tenant, upload_id) if upload_id is not None else None
            if upload is not None and upload.dataset_id is not None:
                return DatasetAnswer.of(datasets.get(session, caller.tenant, upload.dataset_id))
            take_room(session, caller.tenant, "datasets", parts.settings, size_bytes=blob.size_bytes)
            row = datasets.create(
                session,
                tenant=caller.tenant,
                name=name,
                modality=modality,
                sha256=blob.sha256,
                size_bytes=blob.size_bytes,
                max_attempts=parts.settings.max_attempts,
                key_id=caller.key_id,
            )
            if upload is not None:
                uploads.finish(session, upload, row.id)
            answer = DatasetAnswer.of(row)
    except (QuotaExceeded, NotFound):  # others of the tenant have taken the room meanwhile, or deleted the upload
        delete_orphan(parts.database, parts.blobs, blob.sha256)
        raise
    parts.prometheus.uploaded(answer.size_bytes)
    parts.usage.count(caller, uploads=1, uploaded_bytes=answer.size_bytes)
    return answer


@router.get("")
def list_datasets(session: SessionOf, caller: Reader, page: PageOf) -> ListOf[DatasetAnswer]:
    """The tenant's datasets, newest first."""
    rows, has_more = datasets.list_datasets(session, caller.tenant, after=page.after, limit=page.limit)
    return list_of(rows, DatasetAnswer.of, has_more=has_more)


@router.get("/{dataset_id}")
def read_dataset(dataset_id: str, session: SessionOf, caller: Reader) -> DatasetAnswer:
    """A dataset: still validating, ready, or invalid with the reason."""
    return DatasetAnswer.of(datasets.get(session, caller.tenant, dataset_id))


@router.get("/{dataset_id}/report")
def read_dataset_report(dataset_id: str, session: SessionOf, caller: Reader) -> dict[str, Any]:
    """Classes, counts, duplicates, corrupt files, leakage and limits, as validation found them."""
    row = datasets.get(session, caller.tenant, dataset_id)
    return {"dataset": row.id, "status": row.status, "report": row.report, "error": row.error}


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: str, session: SessionOf, caller: Writer) -> None:
    """Delete a dataset; 409 while a job that has not ended needs it. Jobs that have ended keep their results."""
    datasets.delete(session, caller.tenant, dataset_id)


def _fields(form: Form) -> tuple[str, Modality]:
    if "file" not in form.files:
        raise InvalidRequest("the form field file is missing", param="file")
    modality = form.texts.get("modality", "image")
    if modality not in Modality.__args__:  # type: ignore[attr-defined]
        raise InvalidRequest(f"unknown modality {modality!r}; allowed: image", param="modality")
    try:
        name = _NAME.validate_python(form.texts.get("name", form.files["file"][0]))
    except ValidationError as error:
        raise InvalidRequest("name has to have 1 to 200 characters", param="name") from error
    return name, "image"
