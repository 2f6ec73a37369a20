"""Bring the database to the schema of this version."""

import argparse

from cli.errors import Exit


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_migrate)


def _migrate(_: argparse.Namespace) -> int:
    from service.schema import upgrade
    from service.session import open_database
    from service.settings import load_settings

    database = open_database(load_settings())
    try:
        database.wait_ready(timeout_s=60)
        upgrade(database.url.render_as_string(hide_password=False))
    finally:
        database.dispose()
    print("the schema is up to date")
    return Exit.DONE
