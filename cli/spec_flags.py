"""Flags of a job kind, derived from its spec: what the registries hold is what the command offers."""

import argparse
import json
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cli.errors import CommandError


def add_spec_flags(parser: argparse.ArgumentParser, spec: type[BaseModel]) -> None:
    """`dataset` as the argument; a flag for each field, `--trainer KIND` and `--trainer.epochs` for a family's.

    A list takes several values; one of methods, their kinds or JSON objects.
    """
    for name, field in spec.model_fields.items():
        if name == "kind":
            continue
        members = _models(field.annotation)
        if name == "dataset":
            parser.add_argument("dataset", help=field.description)
        elif get_origin(field.annotation) is list:
            _add_list(parser, _flag(name), field)
        elif not members:
            _add(parser, _flag(name), field)
        else:
            if "kind" in members[0].model_fields:
                kinds = [str(member.model_fields["kind"].default) for member in members]
                default = getattr(field.default, "kind", None)
                parser.add_argument(_flag(name), dest=f"spec:{name}.kind", choices=kinds, help=f"default: {default}")
            for inner, inner_field in _fields(members):
                _add(parser, f"{_flag(name)}.{inner.replace('_', '-')}", inner_field, path=f"{name}.{inner}")


def spec_from_flags(kind: str, spec: type[BaseModel], arguments: argparse.Namespace) -> dict[str, Any]:
    """The JSON to post: what was given, and nothing else, so that the service's defaults hold."""
    document: dict[str, Any] = {"kind": kind, "dataset": arguments.dataset}
    for path, value in vars(arguments).items():
        if not path.startswith("spec:") or value is None:
            continue
        name, _, inner = path.removeprefix("spec:").partition(".")
        if not inner:
            document[name] = value
        else:
            document.setdefault(name, {})[inner] = value
    for name, value in document.items():
        if isinstance(value, dict) and "kind" not in value:
            default = getattr(spec.model_fields[name].default, "kind", None)
            if default is not None:
                document[name] = {"kind": default, **value}
    return document


def _add(parser: argparse.ArgumentParser, flag: str, field: FieldInfo, *, path: str | None = None) -> None:
    name = path or flag.removeprefix("--").replace("-", "_")
    choices = _literals(field.annotation)
    default = "" if field.is_required() or field.default_factory else f" (default: {_shown(field.default)})"
    text = f"{field.description or ''}{default}".replace("%", "%%")
    if field.annotation is bool:
        parser.add_argument(flag, dest=f"spec:{name}", action=argparse.BooleanOptionalAction, default=None, help=text)
    elif get_origin(field.annotation) is dict:
        parser.add_argument(flag, dest=f"spec:{name}", action=_Pairs, metavar="NAME=VALUE", help=text)
    elif choices:
        parser.add_argument(flag, dest=f"spec:{name}", choices=choices, help=text)
    else:
        reads = str if _is_text(field.annotation) else _json_or_text
        parser.add_argument(flag, dest=f"spec:{name}", type=reads, metavar=name.split(".")[-1].upper(), help=text)


def _add_list(parser: argparse.ArgumentParser, flag: str, field: FieldInfo) -> None:
    name = flag.removeprefix("--").replace("-", "_")
    (item,) = get_args(field.annotation)
    members = _models(get_args(item)[0] if hasattr(item, "__metadata__") else item)
    kinds = f"any of {', '.join(str(member.model_fields['kind'].default) for member in members)}, or JSON objects"
    text = (field.description or (kinds if members else "")).replace("%", "%%")
    reads = _method if members else str
    parser.add_argument(flag, dest=f"spec:{name}", nargs="+", type=reads, metavar="VALUE", help=text)


def _method(value: str) -> Any:
    """A method by its kind alone, or as a JSON object."""
    return json.loads(value) if value.lstrip().startswith("{") else {"kind": value}


class _Pairs(argparse.Action):
    """NAME=VALUE, repeatable."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        name, separator, value = str(values).partition("=")
        if not separator:
            parser.error(f"{option} wants NAME=VALUE, found {values!r}")
        setattr(namespace, self.dest, {**(getattr(namespace, self.dest) or {}), name: value})


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models a field may hold: one, or the members of a family."""
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]


def _fields(members: list[type[BaseModel]]) -> Iterator[tuple[str, FieldInfo]]:
    """Every field of a family but `kind`, each once; the service says where one does not fit the chosen kind."""
    seen: dict[str, FieldInfo] = {}
    for member in members:
        for name, field in member.model_fields.items():
            if name != "kind":
                seen.setdefault(name, field)
    yield from seen.items()


def _literals(annotation: Any) -> list[str]:
    values = get_args(annotation) if get_origin(annotation) is Literal else ()
    return [value for value in values if isinstance(value, str)]


def _is_text(annotation: Any) -> bool:
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    plain = [get_args(member)[0] if hasattr(member, "__metadata__") else member for member in members]
    return str in plain


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)


def read_spec(path: str) -> Mapping[str, Any]:
    """The JSON object in a file, or on standard input where the path is `-`."""
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CommandError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CommandError(f"{path} holds {type(document).__name__}, expected a JSON object")
    return document
