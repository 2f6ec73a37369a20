"""Check what this machine and the service need, one line each."""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from cli.client import connect
from cli.errors import CommandError, Exit
from cli.output import print_json, print_table
from service.errors import ServiceError
from service.health import Check, check_all
from service.settings import Settings, load_settings

_LEAST_FREE_BYTES = 2 << 30
_GATEWAY_PACKAGES = ("fastapi", "sqlalchemy", "psycopg", "celery")
_WORKER_PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch")


def configure(_: str, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", action="append", metavar="CHECK", help="only this check; repeatable")
    parser.add_argument("--json", action="store_true", help="print the checks as JSON on stdout")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    wanted = arguments.only
    checks = [check for check in _checks(load_settings()) if not wanted or check.name in wanted]
    unknown = set(wanted or ()) - {check.name for check in checks}
    if unknown:
        raise CommandError(f"no check is called {', '.join(sorted(unknown))}")
    if arguments.json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(("check", "", "found"), [(check.name, _word(check), check.detail) for check in checks])
    # A check that was asked for by name has to pass, required or not.
    failed = [check for check in checks if not check.is_ok and (check.is_required or wanted)]
    return Exit.FAILED if failed else Exit.DONE


def _word(check: Check) -> str:
    if check.is_ok:
        return "ok"
    return "FAILED" if check.is_required else "absent"


def _checks(settings: Settings) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", sys.version_info >= (3, 11), version)
    yield _packages("packages", _GATEWAY_PACKAGES, is_required=True)
    yield _packages("worker-packages", _WORKER_PACKAGES, is_required=False)
    yield _disk(settings.data_dir)
    yield Check(
        "cores", True, str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    )
    yield Check("accelerator", _has_driver(), "an NVIDIA driver" if _has_driver() else "none", is_required=False)
    yield from _service(settings)
    yield _address()


def _packages(name: str, names: tuple[str, ...], *, is_required: bool) -> Check:
    found, absent = [], []
    for package in names:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            absent.append(package)
    return Check(name, not absent, f"not installed: {', '.join(absent)}" if absent else ", ".join(found), is_required)


def _disk(data_dir: Path) -> Check:
    existing = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    return Check("disk", free >= _LEAST_FREE_BYTES, f"{free / (1 << 30):.1f} GiB free at {existing}")


def _service(settings: Settings) -> Iterator[Check]:
    from service.blobs import Blobs
    from service.queue import make_celery
    from service.session import open_database

    try:
        database = open_database(settings)
    except ServiceError as error:
        yield Check("database", False, error.detail, is_required=False)
        return
    try:
        yield from check_all(database, make_celery(settings), Blobs(settings.blob_store_url, database))
    finally:
        database.dispose()


def _address() -> Check:
    try:
        with connect() as client:
            return Check("gateway", True, f"{client.url}: {client.get('/readyz')['status']}", is_required=False)
    except CommandError as error:
        return Check("gateway", False, str(error), is_required=False)


def _has_driver() -> bool:
    return Path("/dev/nvidiactl").exists()
