"""Codes are unique, and every code that is retried is one that exists."""

import importlib
import pkgutil

import service
from mr_core import errors as science
from service import errors


def descendants(base: type) -> list[type]:
    return [base, *(found for child in base.__subclasses__() for found in descendants(child))]


def test_codes_are_unique_and_documented() -> None:
    for module in pkgutil.iter_modules(service.__path__):
        importlib.import_module(f"service.{module.name}")
    classes = [cls for cls in descendants(errors.ServiceError) if cls.__module__.startswith("service.")]
    classes += [cls for cls in descendants(science.ReprogrammingError) if cls.__module__.startswith("mr_core.")]
    codes = [cls.code for cls in classes] + list(errors.JOB_OUTCOMES)
    assert len(codes) == len(set(codes))
    assert all(cls.__doc__ for cls in classes)


def test_retryable_codes_exist() -> None:
    known = {cls.code for cls in descendants(errors.TransientError)} | set(errors.JOB_OUTCOMES)
    assert known >= errors.RETRYABLE
    assert errors.RETRYABLE.isdisjoint({"timeout", "internal_error", "interrupted"})
