"""The one table: error -> HTTP status; and the problem document (RFC 9457) that every error answers with."""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from starlette.exceptions import HTTPException

from api.validation import Fault, faults_of
from mr_core import errors as science
from service import errors as service
from service.keys import UnknownScope

_log = structlog.get_logger(__name__)
PROBLEM_JSON = "application/problem+json"


class Problem(BaseModel):
    """Every answer from 400 up."""

    type: str = Field(description="urn:mr:error: and the code.")
    title: str
    status: int
    code: str = Field(description="Stable; see docs/errors.md.")
    detail: str = Field(description="What was found, and what was expected.")
    param: str | None = Field(None, description="The part of the request at fault, as a dotted path.")
    request_id: str
    errors: list[Fault] | None = Field(None, description="Each fault of a request with several.")


class HttpError(service.ServiceError):
    """What only HTTP can get wrong; `headers` go with the answer."""

    code = "http_error"
    status = 400

    def __init__(self, detail: str, *, param: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail, param=param)
        self.headers = dict(headers or {})


class MalformedBody(HttpError):
    """The body is not what its Content-Type says."""

    code = "malformed_body"


class MethodNotAllowed(HttpError):
    """The route exists, for other methods."""

    code, status = "method_not_allowed", 405


class NotAcceptable(HttpError):
    """None of the media types in Accept can be served."""

    code, status = "not_acceptable", 406


class RequestTimeout(HttpError):
    """The body stopped coming."""

    code, status = "request_timeout", 408


class RangeNotSatisfiable(HttpError):
    """The range lies outside the content."""

    code, status = "range_not_satisfiable", 416


class UnsupportedMediaType(HttpError):
    """The body's Content-Type is none that the route reads."""

    code, status = "unsupported_media_type", 415


class InvalidRequest(HttpError):
    """A field or parameter is missing, unknown or out of range."""

    code, status = "validation_error", 422

    def __init__(self, detail: str, *, param: str | None = None, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail, param=param)
        self.faults = list(faults)


class RateLimited(HttpError):
    """More requests within a minute than are allowed."""

    code, status = "rate_limited", 429


class PredictorUnavailable(HttpError):
    """The inference process does not answer; try again."""

    code, status = "predictor_unavailable", 503


class InternalError(HttpError):
    """A bug; the log has the traceback under the request id."""

    code, status = "internal_error", 500


STATUS_BY_ERROR: dict[type[Exception], int] = {
    science.ReprogrammingError: 422,
    science.BackboneUnavailable: 503,
    science.RemoteError: 502,
    science.RemoteNotAnswering: 503,
    service.ServiceError: 500,
    service.Unauthenticated: 401,
    service.Forbidden: 403,
    service.NotFound: 404,
    service.Conflict: 409,
    service.PayloadTooLarge: 413,
    service.DigestMismatch: 422,
    service.InvalidValue: 422,
    service.UrlNotAllowed: 422,
    service.QuotaExceeded: 429,
    UnknownScope: 422,
    service.TransientError: 503,
}
RETRY_AFTER_S = {429: 10, 503: 2}
_TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "Request timed out",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    422: "Not processable",
    429: "Too many",
    500: "Internal error",
    502: "Bad gateway",
    503: "Try again later",
}


def status_of(error: type[Exception]) -> int:
    """The HTTP status of a class of errors: its own entry in the table, or its nearest parent's."""
    if issubclass(error, HttpError):
        return error.status
    return next((STATUS_BY_ERROR[parent] for parent in error.__mro__ if parent in STATUS_BY_ERROR), 500)


def install(app: FastAPI) -> None:
    """Every error of the app answers with a problem document."""
    app.add_exception_handler(science.ReprogrammingError, _answer_known)
    app.add_exception_handler(service.ServiceError, _answer_known)
    app.add_exception_handler(NoFreeConnection, _answer_busy)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)


def problem_response(error: Exception, *, request_id: str) -> JSONResponse:
    """The answer to an error of mr_core or service; anything else is told as an internal error."""
    if not isinstance(error, science.ReprogrammingError | service.ServiceError):
        error = InternalError("an unexpected error; the log has it under this request id")
    status = status_of(type(error))
    problem = Problem(
        type=f"urn:mr:error:{error.code}",
        title=_TITLES[status],
        status=status,
        code=error.code,
        detail=error.detail,
        param=error.param,
        request_id=request_id,
        errors=getattr(error, "faults", None) or None,
    )
    headers = dict(getattr(error, "headers", {}))
    if status in RETRY_AFTER_S:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S[status]))
    if status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="mr"')
    return JSONResponse(
        problem.model_dump(exclude_none=True) | {"param": problem.param}, status, headers, media_type=PROBLEM_JSON
    )


def _answer_known(request: Request, error: Exception) -> JSONResponse:
    if status_of(type(error)) >= 500:
        _log.warning("request_failed", code=getattr(error, "code", None), detail=str(error))
    return problem_response(error, request_id=request.state.request_id)


def _answer_busy(request: Request, _: Exception) -> JSONResponse:
    error = service.DatabaseUnavailable("every connection to the database is in use")
    return problem_response(error, request_id=request.state.request_id)


def _answer_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if any(fault["type"] == "json_invalid" for fault in error.errors()):
        fault = error.errors()[0]
        told: HttpError = MalformedBody(
            f"the body is not JSON: {fault['ctx']['error']} at character {fault['loc'][-1]}"
        )
    else:
        faults = faults_of(error, request)
        told = InvalidRequest(faults[0].detail, param=faults[0].param, faults=faults if len(faults) > 1 else ())
    return problem_response(told, request_id=request.state.request_id)


def _answer_http(request: Request, error: Exception) -> JSONResponse:
    """What Starlette raises by itself: no such route, no such method, an unreadable body."""
    assert isinstance(error, HTTPException)
    told: Exception
    match error.status_code:
        case 404:
            told = service.NotFound(f"there is no {request.url.path}; GET /openapi.json lists the routes")
        case 405:
            allowed = (error.headers or {}).get("Allow", "")
            told = MethodNotAllowed(
                f"{request.method} is not a method of {request.url.path}; allowed: {allowed}", headers=error.headers
            )
        case 400:  # FastAPI wraps what reading the body raised
            told = error.__cause__ if isinstance(error.__cause__, service.ServiceError) else MalformedBody(error.detail)
        case _:
            told = InternalError(str(error.detail))
    return problem_response(told, request_id=request.state.request_id)


def all_codes(*roots: type[Any]) -> dict[str, int]:
    """Code -> HTTP status of every class below the roots."""
    found: dict[str, int] = {}
    pending = list(roots)
    while pending:
        error = pending.pop()
        found[error.code] = status_of(error)
        pending += error.__subclasses__()
    return dict(sorted(found.items()))
