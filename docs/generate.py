"""Write `docs/methods/`: a page for every registered method, from its spec.

python -m docs.generate
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from api.methods import FAMILIES, Method, describe

FOLDER = Path(__file__).parent / "methods"
TITLES = {
    "job_kinds": "Job kinds",
    "input_transforms": "Input transforms",
    "label_mappings": "Label mappings",
    "trainers": "Trainers",
    "sources": "Source networks",
    "scores": "Scores",
}
_WRITTEN = "<!-- Written by `python -m docs.generate` from the spec; edit that. -->"


def pages() -> Iterator[tuple[str, str]]:
    """Each page's path under `docs/methods/` and its text, the index first."""
    index = [
        _WRITTEN,
        "",
        "# Methods",
        "",
        "What a job can name, with the paper, every hyper-parameter and its default.",
    ]
    menu = {family: [describe(spec) for spec in specs.values()] for family, specs in FAMILIES.items()}
    for family, methods in menu.items():
        index += ["", f"## {TITLES[family]}", "", "| kind | what it is |", "|---|---|"]
        index += [f"| [{method.kind}]({family}/{method.kind}.md) | {method.summary} |" for method in methods]
    yield "README.md", "\n".join(index) + "\n"
    for family, methods in menu.items():
        for method in methods:
            yield f"{family}/{method.kind}.md", _page(family, method)


def _page(family: str, method: Method) -> str:
    lines = [_WRITTEN, "", f"# {method.kind}", "", f"[{TITLES[family]}](../README.md)", "", method.description, ""]
    rows = list(_fields(method.json_schema))
    if rows:
        lines += ["| field | default | values | meaning |", "|---|---|---|---|", *rows, ""]
    if method.arxiv:
        links = [f"[arXiv:{number}](https://arxiv.org/abs/{number})" for number in dict.fromkeys(method.arxiv)]
        lines += [f"Papers: {', '.join(links)}.", ""]
    return "\n".join(lines)


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        if name == "kind":
            continue
        default = "required" if name in required else f"`{_short(field.get('default'))}`"
        meaning = str(field.get("description", "")).replace("|", "\\|")
        yield f"| `{name}` | {default} | {_values(field)} | {meaning} |"


def _values(field: Mapping[str, Any]) -> str:
    """The type of a field and its bounds, in a few words."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_values(part) for part in field["anyOf"]))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "oneOf" in field:
        return "one of a family"
    names = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{words} {field[key]}" for key, words in names.items() if key in field]
    return ", ".join([str(field.get("type", "any")), *bounds])


def _short(value: Any) -> str:
    """A default as JSON has it; of a method its kind alone."""
    if isinstance(value, Mapping) and "kind" in value:
        return str(value["kind"])
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return json.dumps(value) if value is None or isinstance(value, bool | int | float | str) else "{...}"


def main() -> None:
    kept = set()
    for name, text in pages():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        kept.add(path)
    for path in sorted(FOLDER.rglob("*.md")):
        if path not in kept:
            path.unlink()  # of a method that is gone


if __name__ == "__main__":
    main()
