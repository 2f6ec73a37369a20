"""Names for adapters: predictions and reads take them in place of an id."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import Reader, SessionOf, Writer
from api.errors import InvalidRequest
from api.responses import AliasAnswer, ListOf, list_of
from service import aliases

router = APIRouter(prefix="/v1/adapters/aliases", tags=["adapters"])

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
AliasName = Annotated[
    str, Path(pattern=_NAME, description="Letters, digits, '.', '_' and '-', at most 100; not 'ad_...', nor 'aliases'.")
]


class AliasRequest(BaseModel):
    """Where an alias leads."""

    model_config = ConfigDict(extra="forbid")

    adapter: str = Field(min_length=1, max_length=200, description="Id of an adapter (ad_...).")


@router.put("/{name}", responses={201: {"model": AliasAnswer}})
def put_alias(
    name: AliasName, body: AliasRequest, response: Response, session: SessionOf, caller: Writer
) -> AliasAnswer:
    """Make an alias, or move it to another adapter: requests that come later see the new one."""
    if name.startswith("ad_") or name == "aliases":
        raise InvalidRequest(f"the alias {name!r} could be taken for an id or a route; choose another", param="name")
    row, is_new = aliases.put(session, caller.tenant, name, body.adapter)
    response.status_code = 201 if is_new else 200
    return AliasAnswer.of(row)


@router.get("")
def list_aliases(session: SessionOf, caller: Reader) -> ListOf[AliasAnswer]:
    """All the tenant's aliases, by name."""
    return list_of(aliases.list_aliases(session, caller.tenant), AliasAnswer.of, has_more=False)


@router.delete("/{name}", status_code=204)
def delete_alias(name: AliasName, session: SessionOf, caller: Writer) -> None:
    """Forget an alias; its adapter stays."""
    aliases.delete(session, caller.tenant, name)
