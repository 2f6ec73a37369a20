"""Builds the gateway: routes, error handlers, middleware, and what it holds while it runs. Never imports torch."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from api import (
    adapter_aliases,
    adapters,
    api_keys,
    backbones,
    datasets,
    errors,
    estimates,
    events,
    health,
    home,
    jobs,
    methods,
    openapi,
    predictions,
    results,
    resumable_uploads,
    usage,
    webhooks,
)
from api.body_limits import BodyLimits
from api.dependencies import Parts, refuse_unknown_parameters
from api.errors import PROBLEM_JSON, Problem
from api.prometheus import Prometheus
from api.request_context import RequestContext
from mr_core import __version__
from service.blobs import LARGEST_IN_DATABASE_BYTES, Blobs
from service.events import EVENTS_CHANNEL, Listener
from service.rate_limits import RateLimiter
from service.session import open_database
from service.settings import Settings
from service.usage import UsageMeter

_UPLOADS = frozenset({"/v1/datasets", "/v1/backbones"})
_FORM_BYTES = 4 << 20  # what the fields beside an uploaded file may take
_JSON_BYTES = 1 << 20


def create_app(settings: Settings) -> FastAPI:
    """The gateway of these settings. Opens no connection before the first request or start-up."""
    parts = _parts(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts.listener.start()
        parts.usage.start()
        try:
            yield
        finally:
            parts.usage.stop()
            parts.listener.stop()
            parts.database.dispose()

    app = FastAPI(
        title="Model reprogramming",
        version=__version__,
        summary="Adapts frozen models to new tasks with adapters of some kilobytes.",
        lifespan=lifespan,
        dependencies=[Depends(refuse_unknown_parameters)],
        responses={"4XX": {"model": Problem, "content": {PROBLEM_JSON: {}}}, "5XX": {"model": Problem}},
        redoc_url=None,
        generate_unique_id_function=openapi.operation_id,
    )
    openapi.install(app)
    app.state.parts = parts
    for module in (
        home,
        health,
        methods,
        datasets,
        resumable_uploads,
        backbones,
        jobs,
        estimates,
        events,
        results,
        adapter_aliases,  # before adapters, whose paths match an alias's too
        adapters,
        predictions,
        webhooks,
        api_keys,
        usage,
    ):
        app.include_router(module.router)
    errors.install(app)

    def limit_of(path: str) -> int:
        if path in _UPLOADS:
            return settings.max_upload_bytes + _FORM_BYTES
        if path == "/v1/adapters":
            return LARGEST_IN_DATABASE_BYTES + _FORM_BYTES
        if resumable_uploads.is_part(path):
            return resumable_uploads.MAX_PART_BYTES
        return predictions.MAX_BODY_BYTES if path.endswith("/predict") else _JSON_BYTES

    app.add_middleware(BodyLimits, limit_of=limit_of)
    app.add_middleware(RequestContext, prometheus=parts.prometheus)
    return app


def _parts(settings: Settings) -> Parts:
    database = open_database(settings)
    return Parts(
        settings=settings,
        database=database,
        blobs=Blobs(settings.blob_store_url, database),
        listener=Listener(database, EVENTS_CHANNEL),
        prometheus=Prometheus(),
        rate_limiter=RateLimiter(settings.broker_url),
        usage=UsageMeter(database),
    )
