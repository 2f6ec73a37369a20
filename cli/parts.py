"""The parts of the service, each run alone in this process; their settings come from the environment."""

import argparse
import gc
import signal
import socket
import threading

from cli.errors import Exit
from service.logging import configure_logging
from service.settings import Settings, load_settings

_GRACE_S = 5  # for open requests, event streams among them, when the gateway stops


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    if name in {"gateway", "predictor"}:
        parser.add_argument("--host", help="address to listen on")
        parser.add_argument("--port", type=int, help="port to listen on")
    if name == "gateway":
        parser.add_argument("--fd", type=int, help="a listening socket inherited from the parent, instead")
    elif name == "worker":
        parser.add_argument("--queue", required=True, choices=["cpu", "gpu", "io"], help="the one queue it serves")
        parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="what its jobs compute on")
    parser.set_defaults(run={"gateway": _gateway, "worker": _worker, "sweeper": _sweeper,
                             "predictor": _predictor, "postgres": _postgres}[name])  # fmt: skip


def _gateway(arguments: argparse.Namespace) -> int:
    gc.disable()  # nothing that an import makes is garbage: a sixth of the start went into looking for some
    import uvicorn

    from api.main import create_app

    gc.freeze()
    gc.enable()
    settings = load_settings(host=arguments.host, port=arguments.port)
    configure_logging(settings)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    server.run(sockets=None if arguments.fd is None else [socket.socket(fileno=arguments.fd)])
    return Exit.DONE if server.started else Exit.FAILED


def _worker(arguments: argparse.Namespace) -> int:
    from worker.main import run_worker

    return run_worker(load_settings(), queue=arguments.queue, device=arguments.device)


def _sweeper(_: argparse.Namespace) -> int:
    from service.blobs import Blobs
    from service.queue import make_celery
    from service.session import open_database
    from service.sweeper import Sweeper

    settings = load_settings()
    configure_logging(settings)
    database = open_database(settings)
    database.wait_ready()
    blobs = Blobs(settings.blob_store_url, database)
    Sweeper(settings, database, make_celery(settings), blobs).run(_stop_event())
    database.dispose()
    return Exit.DONE


def _predictor(arguments: argparse.Namespace) -> int:
    from worker.predictor import run_predictor

    run_predictor(load_settings(predictor_host=arguments.host, predictor_port=arguments.port))
    return Exit.DONE


def _postgres(_: argparse.Namespace) -> int:
    """The embedded database as a part of `mr up`: kept running, and stopped with this process."""
    from service.embedded import EmbeddedPostgres

    settings: Settings = load_settings()
    stop = _stop_event()
    server = EmbeddedPostgres(settings.data_dir)
    try:
        while not stop.is_set():
            server.start()
            stop.wait(1)
    finally:
        server.stop()
    return Exit.DONE


def _stop_event() -> threading.Event:
    """Set by SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
