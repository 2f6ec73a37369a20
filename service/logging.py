"""Structured logs: for people on a terminal, as JSON lines for machines. `job_id` is bound while a job is worked on."""

import logging
import sys
from contextlib import AbstractContextManager

import structlog

from service.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Send this process's logs, those of libraries included, to stderr in the form that the settings ask for."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    is_json = settings.log_format == "json"
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if is_json
        # The default shows every local variable, which takes seconds a traceback and prints what is nobody's business.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    last = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    errors = [structlog.processors.format_exc_info] if is_json else []
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*last, *errors, renderer])
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for chatty in ("alembic", "httpx", "urllib3", "celery", "kombu", "amqp"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def job_bound(job_id: str) -> AbstractContextManager[object]:
    """While the block runs, every log line of this thread carries the job's id."""
    return structlog.contextvars.bound_contextvars(job_id=job_id)
