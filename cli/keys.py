"""API keys, written straight into the database: the first key has no key to ask with."""

import argparse
from datetime import UTC, datetime, timedelta

from cli.errors import Exit
from cli.output import print_json


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser("create", help="print a new key; it cannot be shown again")
    create.add_argument(
        "--scope", action="append", choices=["read", "write", "admin"], help="repeatable (default: read and write)"
    )
    create.add_argument("--tenant", default="default", help="whose data it opens")
    create.add_argument("--name", default="mr keys create", help="what it is for")
    create.add_argument("--days", type=float, help="it expires after so many days (default: never)")
    create.add_argument("--json", action="store_true", help="print the key with its id, tenant and scopes as JSON")
    create.set_defaults(run=_create)


def _create(arguments: argparse.Namespace) -> int:
    from service import keys
    from service.session import open_database
    from service.settings import load_settings

    expires_at = datetime.now(UTC) + timedelta(days=arguments.days) if arguments.days is not None else None
    database = open_database(load_settings())
    try:
        with database.session() as session:
            key, secret = keys.create_key(
                session,
                tenant=arguments.tenant,
                name=arguments.name,
                scopes=arguments.scope or ["read", "write"],
                expires_at=expires_at,
            )
            row = {"id": key.id, "tenant": key.tenant, "scopes": key.scopes, "key": secret}
    finally:
        database.dispose()
    print_json(row) if arguments.json else print(secret)
    return Exit.DONE
