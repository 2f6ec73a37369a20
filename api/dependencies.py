"""What routes are given: a transaction, the blobs, the authenticated caller, the page asked for.

Those that ask no database are `async`: FastAPI calls any other in a thread, which costs more than they do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from api.errors import InvalidRequest, RateLimited
from api.prometheus import Prometheus
from service import keys
from service.blobs import Blobs
from service.errors import Forbidden, Unauthenticated
from service.events import Listener
from service.keys import Caller, Scope
from service.rate_limits import WINDOW_S, RateLimiter, Standing
from service.session import Database
from service.settings import Settings
from service.usage import UsageMeter

MAX_PAGE = 200
_bearer = HTTPBearer(auto_error=False, bearerFormat="mr_<id>_<secret>", description="An API key.")


@dataclass(frozen=True)
class Parts:
    """What one gateway process holds for all its requests."""

    settings: Settings
    database: Database
    blobs: Blobs
    listener: Listener
    prometheus: Prometheus
    rate_limiter: RateLimiter
    usage: UsageMeter


@dataclass(frozen=True)
class Page:
    """Which part of a list: what comes after an id, at most so many."""

    after: str | None
    limit: int


async def get_parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


PartsOf = Annotated[Parts, Depends(get_parts)]


def get_session(parts: PartsOf) -> Iterator[Session]:
    """One transaction for the request, committed before the answer leaves: a 201 is never taken back."""
    with parts.database.session() as session:
        yield session


SessionOf = Annotated[Session, Depends(get_session, scope="function")]


def authenticate(
    request: Request,
    parts: PartsOf,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Caller:
    """Who asks; Unauthenticated without a valid key, RateLimited where too many asked with it or with wrong ones."""
    if credentials is None:
        found = "another scheme" if "authorization" in request.headers else "none"
        raise Unauthenticated(f"an API key is needed (Authorization: Bearer mr_...); found {found}")
    limiter, settings = parts.rate_limiter, parts.settings
    address = request.client.host if request.client else ""
    spent = limiter.is_spent_here("wrong-keys", address, settings.wrong_keys_per_minute)
    if settings.wrong_keys_per_minute and spent is not None:
        raise _rate_limited(f"{spent.limit} wrong API keys came from {address}", spent)
    try:
        with parts.database.session() as session:
            caller = keys.authenticate(session, credentials.credentials)
    except Unauthenticated:
        limiter.hit_here("wrong-keys", address, settings.wrong_keys_per_minute)
        raise
    if settings.requests_per_minute:
        standing = request.state.rate_limit = limiter.hit("requests", caller.key_id, settings.requests_per_minute)
        if standing.is_exceeded:
            raise _rate_limited(f"more than {standing.limit} requests came with this API key", standing)
    parts.usage.count(caller, requests=1)
    return caller


def _rate_limited(found: str, standing: Standing) -> RateLimited:
    detail = f"{found} within {WINDOW_S} s; try again in {standing.reset_s} s"
    return RateLimited(detail, headers={"Retry-After": str(standing.reset_s)})


CallerOf = Annotated[Caller, Depends(authenticate)]


def require_scope(scope: Scope) -> Any:
    """A dependency that gives the caller if the key has `scope`."""

    async def check(caller: CallerOf) -> Caller:
        if not caller.may(scope):
            held = ", ".join(sorted(caller.scopes))
            raise Forbidden(f"this needs a key with the scope {scope!r}; this key has {held}")
        return caller

    return Depends(check)


Reader = Annotated[Caller, require_scope("read")]
Writer = Annotated[Caller, require_scope("write")]
Admin = Annotated[Caller, require_scope("admin")]


async def get_page(
    after: Annotated[str | None, Query(max_length=200, description="Begin behind this id.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items an answer.")] = 20,
) -> Page:
    return Page(after=after, limit=limit)


PageOf = Annotated[Page, Depends(get_page)]


async def refuse_unknown_parameters(request: Request) -> None:
    """A misspelt filter would silently list everything: name it instead. Only `metadata[key]` has a form of its own."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    known = _query_names(route.dependant)
    objects = {parameter["name"] for parameter in (route.openapi_extra or {}).get("parameters", [])}
    for name, value in request.query_params.multi_items():
        if name not in known and name.partition("[")[0] not in objects:
            listed = ", ".join(sorted(known | objects)) or "none"
            raise InvalidRequest(f"unknown query parameter {name!r}; allowed: {listed}", param=name)
        if not is_storable(value) or not is_storable(name):
            raise InvalidRequest(f"{name!r} holds a NUL character or half a surrogate pair", param=name)


def is_storable(text: str) -> bool:
    """Whether PostgreSQL takes the text: no NUL, no lone surrogate."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _query_names(dependant: Any) -> set[str]:
    names = {field.alias for field in dependant.query_params}
    return names.union(*(_query_names(inner) for inner in dependant.dependencies))
