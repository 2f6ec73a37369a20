"""One table of codes: docs/errors.md, complete and in step with the code."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import api
import service
from api.errors import all_codes
from mr_core.errors import ReprogrammingError
from service.errors import JOB_OUTCOMES, ServiceError

_ROW = re.compile(r"^\| `(\w+)` \| (\d{3}|-) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_TABLE = Path(__file__).parents[2] / "docs" / "errors.md"


@pytest.fixture
def told():
    """Code -> status in the document."""
    rows = _ROW.findall(_TABLE.read_text("utf-8"))
    codes = [row[0] for row in rows]
    assert len(codes) == len(set(codes)), "a code is told twice"
    return {code: None if status == "-" else int(status) for code, status, *_ in rows}


@pytest.fixture
def raised():
    """Code -> status of every class that exists once all modules are imported."""
    for package in (api, service):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    return all_codes(ReprogrammingError, ServiceError)


def test_every_code_is_told_with_its_status(told, raised):
    assert {code: told.get(code) for code in raised} == raised


def test_every_outcome_of_a_job_is_told(told):
    assert set(JOB_OUTCOMES) <= told.keys()


def test_no_code_is_told_that_does_not_exist(told, raised):
    assert told.keys() <= {*raised, *JOB_OUTCOMES}


def test_codes_are_words(raised):
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in raised)


def test_every_class_has_a_line_that_says_what_it_is():
    pending = [ReprogrammingError, ServiceError]
    while pending:
        error = pending.pop()
        assert error.__doc__, error
        pending += error.__subclasses__()
