"""What the tenant and its keys have used, against what they may."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy.orm import Session

from api.dependencies import Parts, PartsOf, Reader, SessionOf
from api.errors import InvalidRequest
from service import jobs, keys, quotas, usage
from service.keys import Caller

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def _written_out(value: Any) -> Any:
    """A bare number would be read as seconds since 1970."""
    if isinstance(value, str) and not _DAY.fullmatch(value):
        raise ValueError("expected YYYY-MM-DD")
    return value


Day = Annotated[date, BeforeValidator(_written_out)]

router = APIRouter(prefix="/v1/usage", tags=["usage"])

_DAYS = 30


class Compute(BaseModel):
    """Attempts that ended on one queue."""

    attempts: int
    seconds: float = Field(description="Wall time of the attempts, start of their process included.")
    images: int = Field(description="Images passed forward or backward through backbones, in attempts that succeeded.")


class Usage(BaseModel):
    """What was used in the period."""

    requests: int
    uploads: int
    uploaded_bytes: int
    predictions: int
    predicted_images: int
    jobs: dict[str, dict[str, int]] = Field(description="By kind and present status; deleted jobs are not counted.")
    compute: dict[str, Compute] = Field(description="By queue.")


class KeyUsage(Usage):
    """What one key used; null is what was submitted before keys were noted."""

    key: str | None
    name: str | None


class Quota(BaseModel):
    """What the tenant has now, and may have."""

    used: int
    limit: int


class Quotas(BaseModel):
    """Of the whole tenant."""

    unfinished_jobs: Quota
    datasets: Quota
    backbones: Quota
    adapters: Quota
    stored_bytes: Quota


class UsageAnswer(BaseModel):
    """A period of whole days (UTC)."""

    model_config = ConfigDict(validate_by_name=True)

    first: date = Field(alias="from")
    last: date = Field(alias="to", description="Included.")
    total: Usage = Field(description="Of the keys below together.")
    keys: list[KeyUsage] = Field(description="Every key of the tenant for one with the scope admin, else its own.")
    quotas: Quotas
    requests_per_minute: int | None = Field(description="The limit of each key; null is none.")


@router.get("")
def read_usage(
    session: SessionOf,
    parts: PartsOf,
    caller: Reader,
    first: Annotated[Day | None, Query(alias="from", description="First day (UTC); 29 days before `to`.")] = None,
    last: Annotated[Day | None, Query(alias="to", description="Last day (UTC), included; today.")] = None,
) -> UsageAnswer:
    """Requests, uploads, predictions, jobs and computing of a period, and the quotas now.

    Requests to other gateways are told some seconds late.
    """
    last = last or datetime.now(UTC).date()
    if first is None:
        first = date.fromordinal(max(1, last.toordinal() - timedelta(days=_DAYS - 1).days))
    if first > last:
        raise InvalidRequest(f"from is {first}, expected a day not after to ({last})", param="from")
    parts.usage.flush()
    only = None if caller.may("admin") else caller.key_id
    used = usage.used_by_key(session, caller.tenant, first=first, last=last, key_id=only)
    total = usage.Used()
    for of_key in used.values():
        total.add(of_key)
    names = {key.id: key.name for key in keys.list_keys(session, caller.tenant)}
    return UsageAnswer(
        first=first,
        last=last,
        total=Usage.model_validate(_told(total)),
        keys=[
            KeyUsage.model_validate({"key": key, "name": names.get(key or ""), **_told(used[key])})
            for key in sorted(used, key=lambda key: key or "", reverse=True)
        ],
        quotas=_quotas(session, parts, caller),
        requests_per_minute=parts.settings.requests_per_minute or None,
    )


def _told(used: usage.Used) -> dict[str, object]:
    return {**used.counts, "jobs": used.jobs, "compute": {name: vars(part) for name, part in used.compute.items()}}


def _quotas(session: Session, parts: Parts, caller: Caller) -> Quotas:
    settings = parts.settings

    def kept(what: quotas.Kept) -> Quota:
        used = quotas.count_kept(session, caller.tenant, what)
        return Quota(used=used, limit=quotas.limit_of(settings, what))

    return Quotas(
        unfinished_jobs=Quota(used=jobs.count_unfinished(session, caller.tenant), limit=settings.max_unfinished_jobs),
        datasets=kept("datasets"),
        backbones=kept("backbones"),
        adapters=kept("adapters"),
        stored_bytes=Quota(used=quotas.stored_bytes(session, caller.tenant), limit=settings.max_stored_bytes),
    )
