"""Logs: one JSON object a line for machines, with the job's id while a job is worked on."""

import json
import logging

import pytest
import structlog

from service.logging import configure_logging, job_bound
from service.settings import Settings


@pytest.fixture(autouse=True)
def restore():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_json_lines_carry_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    with job_bound("job_1"):
        structlog.get_logger("worker").info("attempt begins", attempt=2)
        logging.getLogger("library").warning("from a %s", "library")
    try:
        raise ZeroDivisionError("x")
    except ZeroDivisionError:
        structlog.get_logger("worker").exception("failed")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["attempt begins", "from a library", "failed"]
    assert [line.get("job_id") for line in lines] == ["job_1", "job_1", None]
    assert lines[0]["attempt"] == 2
    assert "ZeroDivisionError" in lines[2]["exception"]


def test_console_lines_respect_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_level="warning"))
    structlog.get_logger("worker").info("hidden")
    structlog.get_logger("worker").warning("shown")
    assert "hidden" not in (printed := capsys.readouterr().err)
    assert "shown" in printed
