"""API keys: what opens, what does not, and that nobody can read a secret back."""

from datetime import UTC, datetime, timedelta

import pytest

from service import keys
from service.errors import NotFound, Unauthenticated
from service.session import Database


def test_key_identifies_its_tenant_and_scopes(database: Database) -> None:
    with database.session() as session:
        row, secret = keys.create_key(session, tenant="a", name="laptop", scopes=["read", "write"])
    with database.session() as session:
        caller = keys.authenticate(session, secret)
    assert (caller.tenant, caller.scopes, caller.key_id) == ("a", {"read", "write"}, row.id)
    assert secret.startswith(f"mr_{row.id.removeprefix('key_')}_")


def test_secret_is_not_stored(database: Database) -> None:
    with database.session() as session:
        row, secret = keys.create_key(session, tenant="a", name="laptop", scopes=["read"])
    assert secret.rsplit("_", 1)[-1] not in str(vars(row))


@pytest.mark.parametrize(
    "damage",
    [
        lambda key: "",
        lambda key: "mr",
        lambda key: "mr__",
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: "xx" + key[2:],
        lambda key: key.rsplit("_", 1)[0] + "_",
        lambda key: key[:-1] + "é",
        lambda key: "mr_" + "0" * 26 + "_" + key.rsplit("_", 1)[1],
    ],
)
def test_anything_else_opens_nothing(database: Database, damage) -> None:
    with database.session() as session:
        _, secret = keys.create_key(session, tenant="a", name="laptop", scopes=["read"])
        with pytest.raises(Unauthenticated):
            keys.authenticate(session, damage(secret))


def test_unknown_and_wrong_keys_read_the_same_and_are_both_compared(database: Database, monkeypatch) -> None:
    compared = []
    compare = keys.hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    with database.session() as session:
        _, secret = keys.create_key(session, tenant="a", name="laptop", scopes=["read"])
        messages = set()
        for wrong in (secret[:-1] + "x", "mr_unknown_" + "0" * 64):
            with pytest.raises(Unauthenticated) as refused:
                keys.authenticate(session, wrong)
            messages.add(str(refused.value))
    assert len(messages) == 1
    assert len(compared) == 2
    assert all(len(a) == len(b) == 64 for a, b in compared)


def test_expired_key_opens_nothing(database: Database) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    future = datetime.now(UTC) + timedelta(hours=1)
    with database.session() as session:
        _, old = keys.create_key(session, tenant="a", name="old", scopes=["read"], expires_at=past)
        _, new = keys.create_key(session, tenant="a", name="new", scopes=["read"], expires_at=future)
        with pytest.raises(Unauthenticated):
            keys.authenticate(session, old)
        assert keys.authenticate(session, new).tenant == "a"


def test_revoked_key_opens_nothing_and_stays_listed(database: Database) -> None:
    with database.session() as session:
        row, secret = keys.create_key(session, tenant="a", name="laptop", scopes=["admin"])
        first = keys.revoke(session, "a", row.id).revoked_at
        assert keys.revoke(session, "a", row.id).revoked_at == first
        with pytest.raises(Unauthenticated):
            keys.authenticate(session, secret)
        assert [key.id for key in keys.list_keys(session, "a")] == [row.id]


def test_tenants_do_not_see_each_others_keys(database: Database) -> None:
    with database.session() as session:
        row, _ = keys.create_key(session, tenant="a", name="laptop", scopes=["admin"])
        assert keys.list_keys(session, "b") == []
        with pytest.raises(NotFound):
            keys.revoke(session, "b", row.id)


def test_scopes_include_one_another(database: Database) -> None:
    callers = {scope: keys.Caller("a", frozenset({scope}), "key_1") for scope in keys.SCOPES}
    allowed = {scope: [other for other in keys.SCOPES if caller.may(other)] for scope, caller in callers.items()}
    assert allowed == {"read": ["read"], "write": ["read", "write"], "admin": ["read", "write", "admin"]}


@pytest.mark.parametrize("scopes", [[], ["root"], ["read", "root"]])
def test_refuses_scopes_that_do_not_exist(database: Database, scopes: list[str]) -> None:
    with database.session() as session, pytest.raises(keys.UnknownScope, match="read, write, admin"):
        keys.create_key(session, tenant="a", name="laptop", scopes=scopes)
