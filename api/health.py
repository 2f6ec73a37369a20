"""For those who watch the gateway: is it alive, is it ready, what has it done."""

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from api.dependencies import PartsOf
from api.prometheus import Prometheus

router = APIRouter(tags=["operation"])


class Check(BaseModel):
    """One thing that the service stands on."""

    name: str
    is_ok: bool
    detail: str
    is_required: bool


class Readiness(BaseModel):
    """Whether jobs can be taken, and what each part says."""

    status: Literal["ready", "not_ready"]
    checks: list[Check]


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers; it asks nobody else."""
    return {"status": "alive"}


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
def readyz(parts: PartsOf) -> JSONResponse:
    """Whether jobs are accepted. Broker and workers are told of, but jobs can wait for them."""
    from service.health import check_all, is_ready  # Celery and alembic: not needed to start
    from service.queue import make_celery

    checks = check_all(parts.database, make_celery(parts.settings), parts.blobs)
    ready = is_ready(checks)
    told = [Check(name=c.name, is_ok=c.is_ok, detail=c.detail, is_required=c.is_required) for c in checks]
    answer = Readiness(status="ready" if ready else "not_ready", checks=told)
    return JSONResponse(answer.model_dump(), 200 if ready else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(parts: PartsOf) -> Response:
    """Prometheus: requests of this process, jobs and workers of the service. Names no tenant."""
    with parts.database.session() as session:
        return Response(parts.prometheus.render(session), media_type=Prometheus.content_type)
