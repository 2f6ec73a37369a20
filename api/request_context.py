"""Around every request: its id, its line in the log, its metrics, and an answer where the code below failed."""

import re
import time
import uuid
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_response
from api.prometheus import Prometheus
from service.errors import NotFound
from service.rate_limits import WINDOW_S, Standing

_log = structlog.get_logger(__name__)
_NOWHERE = re.compile(r"[\x00\n]")  # a line break would slip past the patterns of routes
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestContext:
    """Outermost: what leaves the app has an `X-Request-ID`, and no exception leaves it."""

    def __init__(self, app: ASGIApp, *, prometheus: Prometheus) -> None:
        self.app = app
        self.prometheus = prometheus

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
                _tell_rate_limit(headers, scope["state"].get("rate_limit"))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                if _NOWHERE.search(scope["path"]):
                    error = NotFound("no id and no route holds a NUL character or a line break")
                    await problem_response(error, request_id=request_id)(scope, receive, send_with_id)
                else:
                    await self.app(scope, receive, send_with_id)
            except Exception as error:
                _log.exception("unexpected_error", method=scope["method"], path=scope["path"])
                if status:
                    raise  # headers are out: only breaking the connection tells the client
                await problem_response(error, request_id=request_id)(scope, receive, send_with_id)
            finally:
                seconds = time.perf_counter() - started
                self.prometheus.observe(method=scope["method"], route=_route(scope), status=status, seconds=seconds)
                _log.info(
                    "request", method=scope["method"], path=scope["path"], status=status, seconds=round(seconds, 4)
                )


def _request_id(scope: Scope) -> str:
    offered = Headers(scope=scope).get("x-request-id", "")
    return offered if _REQUEST_ID.fullmatch(offered) else f"req_{uuid.uuid4().hex}"


def _tell_rate_limit(headers: MutableHeaders, standing: Standing | None) -> None:
    """The header fields of the IETF draft (draft-ietf-httpapi-ratelimit-headers-10)."""
    if standing is not None:
        headers["RateLimit-Policy"] = f'"requests";q={standing.limit};w={WINDOW_S}'
        headers["RateLimit"] = f'"requests";r={standing.remaining};t={standing.reset_s}'


def _route(scope: Scope) -> str:
    """The route's template, so that ids do not become label values."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or "unmatched"
