"""The menu: every job kind and method, read from the registries."""

import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from api.dependencies import authenticate
from mr_core.input_transforms import INPUT_TRANSFORMS
from mr_core.job_spec import JOB_KINDS
from mr_core.label_mappings import LABEL_MAPPINGS
from mr_core.registry import MethodSpec
from mr_core.scores import SCORES
from mr_core.scores.base import Direction, Read, ScoreSpec
from mr_core.sources import SOURCES
from mr_core.trainers import TRAINERS

FAMILIES: Mapping[str, Mapping[str, type[MethodSpec]]] = {
    "job_kinds": JOB_KINDS,
    "input_transforms": INPUT_TRANSFORMS,
    "label_mappings": LABEL_MAPPINGS,
    "trainers": TRAINERS,
    "sources": SOURCES,
    "scores": SCORES,
}
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")

router = APIRouter(prefix="/v1/methods", tags=["methods"], dependencies=[Depends(authenticate)])


class Method(BaseModel):
    """One way of doing one part of a job."""

    kind: str
    summary: str
    description: str = Field(description="What it does and the paper it comes from.")
    arxiv: list[str] = Field(description="Identifiers of the papers it names.")
    defaults: dict[str, Any] = Field(description="What each hyper-parameter is where a job does not say.")
    json_schema: dict[str, Any]


class Score(Method):
    """A number for how well a source model suits a task, computed without training."""

    reads: list[Read] = Field(description="What it is computed from.")
    direction: Direction = Field(description="Which values speak for the source; context says neither do.")


class Methods(BaseModel):
    """Every family."""

    job_kinds: list[Method]
    input_transforms: list[Method]
    label_mappings: list[Method]
    trainers: list[Method]
    sources: list[Method]
    scores: list[Score]


@router.get("")
def list_methods() -> Methods:
    """Every method of every family, with its JSON schema, paper and defaults."""
    return _menu()


def describe(spec: type[MethodSpec]) -> Method:
    """A spec class as the menu shows it."""
    description = inspect.cleandoc(spec.__doc__ or "")
    return Method(
        kind=spec.model_fields["kind"].default,
        summary=description.partition("\n")[0],
        description=description,
        arxiv=_ARXIV.findall(description),
        defaults={
            name: _plain(field.get_default(call_default_factory=True))
            for name, field in spec.model_fields.items()
            if not field.is_required()
        },
        json_schema=spec.model_json_schema(),
    )


def describe_score(spec: type[ScoreSpec]) -> Score:
    """A score's spec class as the menu shows it."""
    return Score(**describe(spec).model_dump(), reads=list(spec.reads), direction=spec.direction)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


@cache
def _menu() -> Methods:
    """Made when first asked for: its JSON schemas would be a tenth of the gateway's start."""
    menu: dict[str, list[Method]] = {
        family: [describe_score(spec) if issubclass(spec, ScoreSpec) else describe(spec) for spec in specs.values()]
        for family, specs in FAMILIES.items()
    }
    return Methods(**menu)
