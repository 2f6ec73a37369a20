"""Predictions of an adapter, made by the inference process behind the gateway."""

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from api.dependencies import Parts, PartsOf, Reader
from api.errors import InvalidRequest
from api.predictor import predict
from api.uploads import read_form
from service import adapters
from service.errors import PayloadTooLarge

router = APIRouter(prefix="/v1/adapters", tags=["predictions"])

MAX_BODY_BYTES = 64 << 20
_MAX_IMAGES = 64
_MAX_IMAGE_BYTES = 32 << 20
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}


class Prediction(BaseModel):
    """What the adapter says of one image."""

    input: str
    label: str
    probability: float
    top: list[tuple[str, float]]


class Predictions(BaseModel):
    """One prediction an image, in the order of the form."""

    adapter: str
    adapter_sha256: str
    backbone_sha256: str | None
    predictions: list[Prediction]


class _Images:
    """The images of a form, in memory."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytearray]] = []

    def open(self, filename: str) -> "_Image":
        if len(self.received) == _MAX_IMAGES:
            raise PayloadTooLarge(f"more than {_MAX_IMAGES} images in one request", param="images")
        self.received.append((filename, bytearray()))
        return _Image(self.received[-1])


class _Image:
    def __init__(self, target: tuple[str, bytearray]) -> None:
        self._name, self._content = target

    def write(self, content: bytes) -> None:
        if len(self._content) + len(content) > _MAX_IMAGE_BYTES:
            raise PayloadTooLarge(f"{self._name} has more than {_MAX_IMAGE_BYTES} bytes", param="images")
        self._content += content


@router.post("/{adapter_id}/predict", openapi_extra=_FORM)
async def predict_images(
    request: Request,
    adapter_id: str,
    parts: PartsOf,
    caller: Reader,
    top_k: Annotated[int, Query(ge=1, le=1000, description="Labels an image, most probable first.")] = 5,
) -> Predictions:
    """Labels of images: multipart field `images`, repeatable."""
    # An alias is followed once: the answer names the adapter that gave it.
    adapter_id, sha256 = await run_sync(_found, parts, caller.tenant, adapter_id)
    images = _Images()
    await read_form(request, files={"images": images.open}, repeatable={"images"})
    if not images.received:
        raise InvalidRequest("the form field images is missing", param="images")
    named = [(name, bytes(content)) for name, content in images.received]
    answer = await run_sync(
        lambda: predict(parts.settings, adapter=adapter_id, tenant=caller.tenant, images=named, top_k=top_k)
    )
    parts.usage.count(caller, predictions=1, predicted_images=len(named))
    return _answer(adapter_id, sha256, answer)


def _found(parts: Parts, tenant: str, name: str) -> tuple[str, str]:
    """Id and SHA-256 of the adapter of this id or alias."""
    with parts.database.session() as session:
        adapter = adapters.find(session, tenant, name)
        return adapter.id, adapter.sha256


def _answer(adapter_id: str, sha256: str, answer: dict[str, Any]) -> Predictions:
    return Predictions(
        adapter=adapter_id,
        adapter_sha256=sha256,
        backbone_sha256=answer["backbone_sha256"],
        predictions=answer["predictions"],
    )
