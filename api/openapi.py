"""The OpenAPI document, put right where generators of clients and testers would stumble over FastAPI's."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.errors import PROBLEM_JSON

_PROBLEM = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def operation_id(route: APIRoute) -> str:
    """The function's name: what a generated client's function is called."""
    return route.name


def install(app: FastAPI) -> None:
    """Have the app serve the document as put right here."""
    generate = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _put_right(generate)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _put_right(generate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    document = generate()
    for operation in _operations(document):
        for status, response in operation["responses"].items():
            if status[0] in "45" and "json" in str(response.get("content")) and status != "503":
                response["content"] = _PROBLEM
            for media_type, content in response.get("content", {}).items():
                if not content:
                    content["schema"] = _bytes_or_text(media_type)
        for parameter in operation.get("parameters", []):
            _forbid_null(parameter["schema"])
        for content in operation.get("requestBody", {}).get("content", {}).values():
            content["schema"] = _named(content["schema"], document["components"]["schemas"])
    _tell_defaults_in_words(document)
    return document


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()


def _named(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to a form's schema, which goes among the others with all that it refers to."""
    schemas.update(schema.pop("$defs", {}))
    if schema.get("type") != "object" or "title" not in schema:
        return schema
    schemas[schema["title"]] = schema
    return {"$ref": f"#/components/schemas/{schema['title']}"}


def _bytes_or_text(media_type: str) -> dict[str, str]:
    return {"type": "string"} if media_type.startswith("text/") else {"type": "string", "format": "binary"}


def _forbid_null(schema: dict[str, Any]) -> None:
    """A parameter that may be left out is never null: there is no such thing in a query or a header."""
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        del schema["anyOf"]
        schema.update(choices[0])


def _tell_defaults_in_words(part: Any) -> None:
    """An object as the default of a union stops generators: it goes into the description."""
    if isinstance(part, list):
        for item in part:
            _tell_defaults_in_words(item)
    elif isinstance(part, dict):
        if isinstance(part.get("default"), dict) and part.keys() & {"oneOf", "anyOf", "$ref"}:
            told = f"Default: {json.dumps(part.pop('default'))}."
            part["description"] = f"{part['description']} {told}" if part.get("description") else told
        for item in list(part.values()):
            _tell_defaults_in_words(item)
