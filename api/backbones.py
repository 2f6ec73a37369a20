"""Source models: what ships, and what the tenant has registered or trained."""

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, StringConstraints, ValidationError

from api.content import content_response
from api.datasets import LimitedSink, form_schema, room_for
from api.dependencies import PageOf, Parts, PartsOf, Reader, SessionOf, Writer
from api.errors import InvalidRequest
from api.feasibility import mini_clip_config
from api.predictor import inspect_backbone
from api.responses import BackboneAnswer, ListOf, list_of
from api.results import read_blob
from api.safetensors_header import check_header
from api.uploads import read_form
from mr_core.backbones.description import MINI_CLIP, BackboneDescription, Library, Preprocessing
from mr_core.backbones.remote.description import RemoteDescription, remote_backbone
from service import backbones, safe_http
from service.blobs import BlobWriter
from service.errors import NotFound, UrlNotAllowed
from service.keys import Caller
from service.orphans import delete_orphan
from service.quotas import take_room

router = APIRouter(prefix="/v1/backbones", tags=["backbones"])


class BackboneForm(BaseModel):
    """The form of a registration; objects and lists are JSON. A remote model has no file and no architecture."""

    file: bytes = Field(
        default_factory=bytes, description="Weights, as safetensors.", json_schema_extra={"format": "binary"}
    )
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    library: Library
    architecture: str | None = Field(None, min_length=1, max_length=200, description="As the library calls it.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the architecture.")
    architecture_config: dict[str, Any] | None = Field(
        None, alias="model_config", description="open_clip's model configuration, for an architecture it does not know."
    )
    preprocessing: Preprocessing | None = Field(None, description="What the library states, if left out.")
    classes: tuple[str, ...] | None = Field(None, description="Names of the source classes, in the head's order.")
    remote: RemoteDescription | None = Field(
        None,
        description="Of library remote: where the model is and how it is asked. Its id is then remote:<name>, "
        "and classes and preprocessing (mean and std of what is sent: 0 and 1 for plain pixels) have to be said.",
    )


class Backbones(ListOf[BackboneAnswer]):
    """The tenant's backbones, and those that need no registration."""

    builtin: list[BackboneAnswer]
    unregistered: dict[str, str] = Field(description="Forms of ids that a job may name as they are.")


_UNREGISTERED = {
    "timm:<name>": "An image classifier of timm, with its hub weights.",
    "open_clip:<architecture>/<tag>": "An image and text model of open_clip, with its hub weights.",
    "torchvision:<name>/<weights>": "An image classifier of torchvision, from the worker's cache.",
    "trained:<job>": "What a train_source job of the tenant's has left; it goes with its job.",
    "remote:<name>": "A model that only answers over HTTP, by the name it was registered under.",
    "random:<any id>": "The same architecture with random weights, seeded by the job: a control.",
}
_TEXTS = frozenset(field.alias or name for name, field in BackboneForm.model_fields.items()) - {"file"}
_JSON_FIELDS = frozenset({"arguments", "model_config", "preprocessing", "classes", "remote"})
_REMOTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@router.post("", status_code=201, openapi_extra=form_schema(BackboneForm))
async def create_backbone(request: Request, response: Response, parts: PartsOf, caller: Writer) -> BackboneAnswer:
    """Register a source model. The weights are loaded once to see that they fit; if not, nothing is kept.

    Of a remote model the URL is checked, and nothing asked.
    """
    room = await run_sync(room_for, parts, caller, "backbones")
    with parts.blobs.writer() as writer:
        sink = LimitedSink(writer, parts.settings.max_upload_bytes, room)
        form = await read_form(request, files={"file": lambda _: sink}, texts=_TEXTS)
        fields = _fields(form.texts)
        if fields.library == "remote":
            if "file" in form.files:
                raise InvalidRequest("a remote model has no file", param="file")
            answer = await run_sync(_register_remote, parts, caller, fields)
            response.headers["Location"] = f"/v1/backbones/{answer.id}"
            return answer
        if "file" not in form.files:
            raise InvalidRequest("the form field file is missing", param="file")
        if fields.remote is not None:
            raise InvalidRequest("remote belongs to the library 'remote'", param="remote")
        answer = await run_sync(_register, parts, caller, writer, fields)
    parts.prometheus.uploaded(writer.size_bytes)
    parts.usage.count(caller, uploads=1, uploaded_bytes=writer.size_bytes)
    response.headers["Location"] = f"/v1/backbones/{answer.id}"
    return answer


@router.get("")
def list_backbones(session: SessionOf, caller: Reader, page: PageOf) -> Backbones:
    """The tenant's backbones, newest first; beside them what ships and what needs no registration."""
    rows, has_more = backbones.list_backbones(session, caller.tenant, after=page.after, limit=page.limit)
    listed = list_of(rows, BackboneAnswer.of, has_more=has_more)
    return Backbones(**listed.model_dump(), builtin=[mini_clip()], unregistered=_UNREGISTERED)


@router.head("/{backbone_id}/content", include_in_schema=False)
@router.get(
    "/{backbone_id}/content",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}},
        206: {"description": "The range asked for."},
        304: {"description": "As held."},
    },
)
def read_backbone_content(
    request: Request, backbone_id: str, session: SessionOf, parts: PartsOf, caller: Reader
) -> Response:
    """The weights as they were uploaded, or as a job has left them."""
    row = backbones.get(session, caller.tenant, backbone_id)
    if backbones.is_remote(row.id):
        raise NotFound(f"the weights of {row.id} are not here", param="backbone")
    return content_response(
        request,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        media_type="application/octet-stream",
        read=partial(read_blob, parts, row.sha256),
        filename=f"{row.id}.safetensors",
    )


@router.get("/{backbone_id:path}")
def read_backbone(backbone_id: str, session: SessionOf, caller: Reader) -> BackboneAnswer:
    """A registered backbone, or builtin/mini-clip."""
    if backbone_id == MINI_CLIP:
        return mini_clip()
    return BackboneAnswer.of(backbones.get(session, caller.tenant, backbone_id))


@router.delete("/{backbone_id}", status_code=204)
def delete_backbone(backbone_id: str, session: SessionOf, caller: Writer) -> None:
    """Forget a backbone; 409 while a job that has not ended names it. Adapters keep its description and checksum."""
    backbones.delete(session, caller.tenant, backbone_id)


def mini_clip() -> BackboneAnswer:
    """The backbone that ships."""
    config = mini_clip_config()
    return BackboneAnswer(
        id=MINI_CLIP,
        name="mini-clip",
        library="builtin",
        architecture="mini_clip",
        sha256=config["weights_sha256"],
        size_bytes=None,
        parameters=config["parameters"],
        outputs={"labels": len(config["classes"]), "embedding": config["embedding_dim"], "text": True},
        preprocessing=config["preprocessing"],
        classes=config["classes"],
        job=None,
        created_at=None,
    )


def _fields(texts: Mapping[str, str]) -> BackboneForm:
    values: dict[str, Any] = {"file": b""}
    for name, text in texts.items():
        try:
            values[name] = json.loads(text) if name in _JSON_FIELDS else text
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{name} is not JSON: {error}", param=name) from error
    try:
        return BackboneForm.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"]))
        raise InvalidRequest(f"{param}: {first['msg']}", param=param) from error


def _register_remote(parts: Parts, caller: Caller, form: BackboneForm) -> BackboneAnswer:
    if not _REMOTE_NAME.fullmatch(form.name):
        raise InvalidRequest(
            "name is part of the id of a remote backbone: up to 100 letters, digits, '.', '_' and '-'", param="name"
        )
    if form.remote is None or form.classes is None or form.preprocessing is None:
        missing = next(name for name in ("remote", "classes", "preprocessing") if getattr(form, name) is None)
        raise InvalidRequest(f"{missing}: Field required of a remote model", param=missing)
    for name in ("architecture", "arguments", "architecture_config"):
        if getattr(form, name):
            raise InvalidRequest(f"{name} belongs to a model whose weights are uploaded", param=name)
    try:
        description = remote_backbone("remote", form.remote, classes=form.classes, preprocessing=form.preprocessing)
    except ValueError as error:
        raise InvalidRequest(str(error), param="remote") from error
    _check_url(parts, form.remote.url)
    with parts.database.session() as session:
        take_room(session, caller.tenant, "backbones", parts.settings, size_bytes=0)
        return BackboneAnswer.of(
            backbones.register_remote(session, tenant=caller.tenant, name=form.name, description=description)
        )


def _check_url(parts: Parts, url: str) -> None:
    try:
        safe_http.check(url, allow_loopback=parts.settings.allow_loopback_urls)
    except UrlNotAllowed as error:
        error.param = "remote.url"
        raise


def _register(parts: Parts, caller: Caller, writer: BlobWriter, form: BackboneForm) -> BackboneAnswer:
    if form.architecture is None:
        raise InvalidRequest("architecture: Field required", param="architecture")
    with writer.local_path() as path:
        check_header(path)
    description = BackboneDescription(
        id="uploaded",
        library=form.library,
        architecture=form.architecture,
        arguments=form.arguments,
        architecture_config=form.architecture_config,
        preprocessing=form.preprocessing,
        classes=form.classes,
    )
    blob = writer.commit()
    try:
        inspection = inspect_backbone(parts.settings, blob.sha256, description)
        with parts.database.session() as session:
            take_room(session, caller.tenant, "backbones", parts.settings, size_bytes=blob.size_bytes)
            row = backbones.create(
                session,
                tenant=caller.tenant,
                name=form.name,
                # What the library states today is written down, so that another version of it changes nothing.
                description=description.model_copy(update={"preprocessing": inspection.preprocessing}),
                sha256=blob.sha256,
                size_bytes=blob.size_bytes,
                parameters=inspection.parameters,
                outputs=inspection.outputs,
            )
            return BackboneAnswer.of(row)
    except Exception:
        delete_orphan(parts.database, parts.blobs, blob.sha256)
        raise
