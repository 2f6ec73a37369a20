"""How this service reaches a tenant's remote backbones: to public addresses alone, with the operator's secrets.

A secret is a file `<name>.json` in the operator's folder, `{"header": "Authorization", "value": "Bearer ...",
"origin": "https://api.example", "tenants": ["default"]}`. It is read where a request is to go out, sent to that origin
alone for those tenants alone (`"*"` is every tenant), and is in no row, spec, adapter, event or log.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from mr_core.backbones.remote.description import RemoteDescription
from mr_core.backbones.remote.transport import MAX_ANSWER_BYTES, NoReply, NotSent, RemoteAccess, Reply, Transport
from mr_core.errors import BackboneError
from service import safe_http
from service.errors import RemoteUnavailable, UrlNotAllowed
from service.settings import Settings

EVERY_TENANT: Final = "*"


class Secret(BaseModel):
    """A header that goes with a tenant's requests to one origin."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")] = "Authorization"
    value: SecretStr
    origin: str
    tenants: list[str] = Field(min_length=1)


def access(settings: Settings, tenant: str, remote: RemoteDescription) -> RemoteAccess:
    """What requests of this tenant to this model go out with; BackboneError where its secret is not for them."""
    headers = secret_headers(settings.remote_secrets_dir, tenant, remote) if remote.secret is not None else {}
    return RemoteAccess(send=guarded(allow_loopback=settings.allow_loopback_urls), headers=headers)


def secret_headers(folder: Path | None, tenant: str, remote: RemoteDescription) -> Mapping[str, str]:
    """The header of the secret that a remote model names.

    One error for every reason: a tenant learns neither which secrets there are nor whose.
    """
    refusal = BackboneError(
        f"the secret {remote.secret} is not given to this tenant for the host of {remote.url}", param="backbone"
    )
    if folder is None:
        raise refusal
    try:
        secret = Secret.model_validate_json((folder / f"{remote.secret}.json").read_bytes())
        is_meant = _origin(remote.url) == _origin(secret.origin)
    except (OSError, ValidationError, ValueError, httpx.InvalidURL):
        raise refusal from None  # its text may hold the secret
    value = secret.value.get_secret_value()
    if (
        not is_meant
        or not {tenant, EVERY_TENANT} & set(secret.tenants)
        or not (value.isascii() and value.isprintable() and value == value.strip() != "")
    ):
        raise refusal
    return {secret.header: value}


def guarded(*, allow_loopback: bool) -> Transport:
    """Requests through `safe_http`: a tenant's URL leads to public addresses alone."""

    def send(url: str, *, headers: Mapping[str, str], content: bytes, timeout_s: float) -> Reply:
        try:
            answer = safe_http.request(
                "POST",
                url,
                headers=headers,
                content=content,
                timeout_s=timeout_s,
                max_answer_bytes=MAX_ANSWER_BYTES,
                allow_loopback=allow_loopback,
            )
        except UrlNotAllowed as error:
            raise NotSent(error.detail) from error
        except RemoteUnavailable as error:
            raise (NoReply if error.was_sent else NotSent)(error.detail) from error
        if answer.is_cut:
            raise NoReply(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        return Reply(answer.status, answer.headers, answer.body)

    return send


def _origin(url: str) -> tuple[str, str, int | None]:
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.raw_host.decode("ascii"), parsed.port
