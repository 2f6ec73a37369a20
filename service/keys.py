"""API keys: `mr_<id>_<secret>`, shown once; only a SHA-256 of the secret is kept."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.errors import NotFound, ServiceError, Unauthenticated
from service.ids import new_id
from service.models import ApiKey

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_UNKNOWN = hashlib.sha256(b"").hexdigest()


class UnknownScope(ServiceError):
    """A scope that does not exist; the message lists those that do."""

    code = "unknown_scope"


@dataclass(frozen=True)
class Caller:
    """Who asks: every query is limited to this tenant."""

    tenant: str
    scopes: frozenset[str]
    key_id: str

    def may(self, scope: Scope) -> bool:
        """Whether the key has the scope; `admin` includes the others, `write` includes `read`."""
        implied = {"read": {"read", "write", "admin"}, "write": {"write", "admin"}, "admin": {"admin"}}
        return bool(self.scopes & implied[scope])


def create_key(
    session: Session, *, tenant: str, name: str, scopes: Sequence[str], expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new key; the second value is the whole key and cannot be had again."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise UnknownScope(
            f"found the scopes {unknown or 'none'}, expected some of {', '.join(SCOPES)}", param="scopes"
        )
    secret = secrets.token_hex(32)
    key = ApiKey(
        id=new_id("key"),
        tenant=tenant,
        name=name,
        secret_sha256=_digest(secret),
        scopes=[scope for scope in SCOPES if scope in scopes],
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, f"mr_{key.id.removeprefix('key_')}_{secret}"


def authenticate(session: Session, presented: str) -> Caller:
    """The caller behind a key; one and the same Unauthenticated whatever is wrong with it."""
    prefix, _, rest = presented.partition("_")
    key_id, _, secret = rest.partition("_")
    key = session.get(ApiKey, f"key_{key_id}") if prefix == "mr" else None
    # Compared for an unknown id too, so that the time taken tells nothing.
    matches = hmac.compare_digest(_digest(secret), key.secret_sha256 if key else _UNKNOWN)
    if key is None or not matches or key.revoked_at is not None or _is_past(session, key.expires_at):
        raise Unauthenticated("the API key is unknown, expired or revoked")
    return Caller(key.tenant, frozenset(key.scopes), key.id)


def list_keys(session: Session, tenant: str) -> Sequence[ApiKey]:
    """The tenant's keys, newest first, revoked ones included."""
    return session.scalars(select(ApiKey).filter_by(tenant=tenant).order_by(ApiKey.id.desc())).all()


def revoke(session: Session, tenant: str, key_id: str) -> ApiKey:
    """From now on the key opens nothing; revoking twice is the same as once."""
    key = session.scalars(select(ApiKey).filter_by(tenant=tenant, id=key_id)).one_or_none()
    if key is None:
        raise NotFound(f"there is no API key {key_id}")
    if key.revoked_at is None:
        key.revoked_at = session.scalars(select(func.now())).one()
        session.flush()
    return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _is_past(session: Session, moment: datetime | None) -> bool:
    return moment is not None and session.scalars(select(func.now() >= moment)).one()
