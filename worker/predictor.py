"""The inference process behind the gateway: internal HTTP, never public. `mr predictor` starts it."""

import ctypes
import hmac
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any, Final

import structlog
import torch
import uvicorn
from fastapi import Depends, FastAPI, File, Header, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from mr_core.arithmetic import whole_float32
from mr_core.backbones.description import BackboneDescription
from mr_core.errors import BackboneUnavailable, ReprogrammingError
from service.blobs import Blobs
from service.errors import ConfigurationError, NotFound, ServiceError, TransientError, Unauthenticated
from service.logging import configure_logging
from service.session import Database, open_database
from service.settings import Settings
from worker.environment import available_cores
from worker.failures import failure_of
from worker.inference import Predictor

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_MALLOPT = {"M_TRIM_THRESHOLD": -1, "M_MMAP_THRESHOLD": -3}
_log = structlog.get_logger(__name__)


class InspectionRequest(BaseModel):
    """Weights (a blob) and what they are said to be."""

    sha256: str
    description: BackboneDescription


def run_predictor(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; ConfigurationError for an address beyond this machine without a shared secret."""
    if settings.predictor_host not in _LOOPBACK and settings.predictor_token is None:
        raise ConfigurationError(
            f"predictor_host is {settings.predictor_host}: set MR_PREDICTOR_TOKEN, or bind 127.0.0.1",
            param="predictor_token",
        )
    configure_logging(settings)
    _keep_large_buffers()
    torch.set_num_threads(settings.threads or available_cores())
    database = open_database(settings)
    database.wait_ready()
    app = create_app(settings, database)
    with whole_float32():
        uvicorn.run(app, host=settings.predictor_host, port=settings.predictor_port, log_config=None, access_log=False)
    database.dispose()


def create_app(settings: Settings, database: Database, *, device: str | None = None) -> FastAPI:
    """The app; `device` is the accelerator if there is one and nothing else is said."""
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    predictor = Predictor(database, Blobs(settings.blob_store_url, database), device=chosen, settings=settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        predictor.close()

    app = FastAPI(
        title="predictor",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Depends(_admission(settings))],
    )
    for error in (ReprogrammingError, ServiceError, RequestValidationError, Exception):
        app.add_exception_handler(error, _refusal)

    @app.post("/predict")
    def predict(
        adapter: str, tenant: str, images: Annotated[list[UploadFile], File()], top_k: Annotated[int, Query(ge=1)] = 5
    ) -> dict[str, Any]:
        named = [(image.filename or f"image {n}", image.file.read()) for n, image in enumerate(images, start=1)]
        sha256, backbone_sha256, answers = predictor.predict(adapter, tenant=tenant, images=named, top_k=top_k)
        return {
            "adapter": adapter,
            "adapter_sha256": sha256,
            "backbone_sha256": backbone_sha256,
            "predictions": [asdict(answer) for answer in answers],
        }

    @app.post("/inspect-backbone")
    def inspect_backbone(body: InspectionRequest) -> dict[str, Any]:
        found = predictor.inspect(body.sha256, body.description)
        return {
            "sha256": found.sha256,
            "parameters": found.parameters,
            "outputs": found.outputs.model_dump(mode="json"),
            "preprocessing": found.preprocessing.model_dump(mode="json"),
        }

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {
            "status": "ready",
            "device": str(chosen),
            "backbones": len(predictor.backbones),
            "adapters": len(predictor.adapters),
            "held_bytes": predictor.backbones.held_bytes + predictor.adapters.held_bytes,
        }

    return app


def _admission(settings: Settings) -> Callable[[str | None], None]:
    token = settings.predictor_token

    def admit(x_mr_predictor_token: Annotated[str | None, Header()] = None) -> None:
        if token is None:
            return
        presented = (x_mr_predictor_token or "").encode()
        if not hmac.compare_digest(presented, token.get_secret_value().encode()):
            raise Unauthenticated("the header X-MR-Predictor-Token is missing or wrong")

    return admit


def _refusal(_: Request, error: Exception) -> JSONResponse:
    """`{"code", "detail", "param"}`, which the gateway turns back into the error."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:])
        return _problem(422, "validation_failed", first["msg"], param)
    failure = failure_of(error)
    if failure.is_bug:
        _log.error("internal error", exc_info=error)
    return _problem(_status(error), failure.code, failure.detail, failure.param)


def _status(error: Exception) -> int:
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, Unauthenticated):
        return 401
    if isinstance(error, TransientError | BackboneUnavailable):
        return 503
    return 422 if isinstance(error, ReprogrammingError | ServiceError) else 500


def _problem(status: int, code: str, detail: str, param: str | None) -> JSONResponse:
    return JSONResponse({"code": code, "detail": detail, "param": param}, status_code=status)


def _keep_large_buffers() -> None:
    """What MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ do for an attempt, in a process that already runs."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for option in _MALLOPT.values():
            libc.mallopt(option, 1_000_000_000)
