"""Says of an invalid request which part is at fault, what was found there and what is allowed."""

import types
import typing
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel

Location = Sequence[str | int]
_SHOWN = 80  # characters of a wrong value that an answer repeats


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    param: str | None
    detail: str


def faults_of(error: RequestValidationError, request: Request) -> list[Fault]:
    """The faults of a request, in the order found."""
    route = request.scope.get("route")
    body_type = _body_type(route) if isinstance(route, APIRoute) else None
    return [fault_of(item, body=error.body, body_type=body_type) for item in error.errors()]


def fault_of(item: dict[str, Any], *, body: Any, body_type: Any) -> Fault:
    """One of pydantic's errors as a fault; tags of unions are left out of the path."""
    source, *location = item["loc"]
    if source != "body":
        return _parameter_fault(item, str(source), location)
    path = _without_tags(location, body)
    param = ".".join(map(str, path)) or None
    context = item.get("ctx", {})
    match item["type"]:
        case "extra_forbidden":
            allowed = fields_at(body_type, location[:-1])
            return Fault(param=param, detail=f"unknown field {param!r}{_allowed(allowed)}")
        case "union_tag_invalid":
            param = ".".join([*map(str, path), "kind"])
            expected = context["expected_tags"].replace("'", "")
            return Fault(param=param, detail=f"unknown {param} {context['tag']!r}; allowed: {expected}")
        case "union_tag_not_found":
            param = ".".join([*map(str, path), "kind"])
            return Fault(param=param, detail=f"{param} is missing: it names what is asked for")
        case "missing":
            return Fault(param=param, detail=f"{param or 'the body'} is missing")
        case _:
            return Fault(param=param, detail=f"{param or 'the body'}: {_message(item)}")


def fields_at(annotation: Any, location: Location) -> list[str]:
    """The fields of the model at a location of pydantic's (tags of unions included); empty where it is no model."""
    annotation = _bare(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        members = [_bare(member) for member in get_args(annotation)]
        tagged = [member for member in members if location and _kind(member) == location[0]]
        if tagged:
            return fields_at(tagged[0], location)
        models = [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]
        return fields_at(models[0], location) if len(models) == 1 else []
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return []
    if location and location[0] == _kind(annotation):
        location = location[1:]  # a family of one method is tagged too
    if not location:
        return [field.alias or name for name, field in annotation.model_fields.items()]
    field = annotation.model_fields.get(str(location[0]))
    if field is None:
        return []
    return fields_at(field.annotation, location[1:])


def _parameter_fault(item: dict[str, Any], source: str, location: Location) -> Fault:
    param = ".".join(map(str, location)) or None
    if item["type"] == "missing":
        return Fault(param=param, detail=f"the {source} parameter {param} is missing")
    return Fault(param=param, detail=f"{param}: {_message(item)}")


def _message(item: dict[str, Any]) -> str:
    message = str(item["msg"])
    message = message.removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    found = item.get("input")
    if isinstance(found, str | int | float | bool) or found is None:
        text = repr(found)
        message += f"; found {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"
    return message


def _without_tags(location: Location, body: Any) -> list[str | int]:
    path: list[str | int] = []
    value = body
    for item in location:
        if isinstance(value, dict) and item not in value and value.get("kind") == item:
            continue  # pydantic's path names the member of the union that `kind` chose
        path.append(item)
        try:
            value = value[item]
        except (KeyError, IndexError, TypeError):
            value = None
    return path


def _allowed(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"; allowed: {listed}" if listed else ""


def _kind(annotation: Any) -> str | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and "kind" in annotation.model_fields:
        return typing.cast(str, annotation.model_fields["kind"].default)
    return None


def _bare(annotation: Any) -> Any:
    return _bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _body_type(route: APIRoute) -> Any:
    return route.body_field.field_info.annotation if route.body_field is not None else None
