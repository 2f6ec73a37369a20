"""Keys of the tenant; only a key with the scope `admin` handles them."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from api.dependencies import Admin, SessionOf, is_storable
from api.errors import InvalidRequest
from api.responses import KeyAnswer, ListOf, NewKeyAnswer, list_of
from service import keys
from service.keys import Scope

router = APIRouter(prefix="/v1/api-keys", tags=["keys"])


def _written_out(value: Any) -> Any:
    """A bare number would be read as seconds since 1970."""
    if value is not None and not (isinstance(value, str) and ":" in value):
        raise ValueError("expected a time as in RFC 3339")
    return value


class NewKey(BaseModel):
    """What a key is to be."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)]
    expires_at: Annotated[AwareDatetime | None, BeforeValidator(_written_out)] = Field(
        None, description="RFC 3339 with an offset; never if null."
    )


@router.post("", status_code=201)
def create_key(body: NewKey, response: Response, session: SessionOf, caller: Admin) -> NewKeyAnswer:
    """A new key of this tenant. `key` is shown in this answer and never again."""
    if not is_storable(body.name):
        raise InvalidRequest("name holds a NUL character or half a surrogate pair", param="name")
    expires_at: datetime | None = body.expires_at
    row, key = keys.create_key(session, tenant=caller.tenant, name=body.name, scopes=body.scopes, expires_at=expires_at)
    response.headers["Location"] = f"/v1/api-keys/{row.id}"
    return NewKeyAnswer(**KeyAnswer.of(row).model_dump(), key=key)


@router.get("")
def list_keys(session: SessionOf, caller: Admin) -> ListOf[KeyAnswer]:
    """The tenant's keys, newest first, revoked ones included."""
    return list_of(keys.list_keys(session, caller.tenant), KeyAnswer.of, has_more=False)


@router.delete("/{key_id}")
def revoke_key(key_id: str, session: SessionOf, caller: Admin) -> KeyAnswer:
    """From now on the key opens nothing."""
    return KeyAnswer.of(keys.revoke(session, caller.tenant, key_id))
