"""What commands print: results and tables on stdout, words for people on stderr."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_BASELINES = ("majority", "mapping_only", "linear_probe", "zero_shot", "random_backbone")


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """The raw answer on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns on stdout; control characters of a name never reach the terminal."""
    cells = [list(columns), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_result(job: Mapping[str, Any]) -> None:
    """The end of a job: its result beside the baselines and the verdict, or why there is none."""
    print(f"{job['kind']} {job['id']}: {job['status']}")
    if job.get("error"):
        where = f" ({job['error']['param']})" if job["error"].get("param") else ""
        print(f"{job['error']['code']}: {job['error']['detail']}{where}")
    result = job.get("result")
    if not result:
        return
    if "cells" in result:
        _print_ranking(result)
    elif "baselines" in result and "metrics" in result:
        if "search" in result:
            _print_search(result["search"])
        _print_training(result)
    elif "metrics" in result:
        _print_evaluation(result)
    else:
        _print_diagnosis(result)


def _print_training(result: Mapping[str, Any]) -> None:
    trained = "adapter" if "adapter" in result else "source"
    rows = [(trained, result["metrics"]), *((name, result["baselines"].get(name)) for name in _BASELINES)]
    print_table(
        ("", "validation", "test"),
        [(name, *(percent(accuracy(values, split)) for split in ("validation", "test"))) for name, values in rows],
    )
    print(f"verdict: use {result['verdict']['use']}: {result['verdict']['reason']}")
    left = "adapter" if "adapter" in result else "backbone"
    print(f"{left}: {result[left]}  ({result['timing']['seconds']:.1f} s)")


def _print_search(search: Mapping[str, Any]) -> None:
    columns = ("trial", "", "validation", "epochs", "seconds", "state", "")
    rows = [
        (
            row["number"],
            row["name"],
            percent(row["validation_accuracy"]),
            row["epochs"],
            row["seconds"],
            row["state"],
            (row["error"] or {}).get("detail", ""),
        )
        for row in search["trials"]
    ]
    print_table(columns, rows)
    impossible = [cell for cell in search["cells"] if cell["error"]]
    for cell in impossible:
        detail = cell["error"].get("detail", cell["error"]["code"])
        print(f"left out: {cell['input_transform']['kind']} + {cell['label_mapping']['kind']}: {detail}")


def _print_evaluation(result: Mapping[str, Any]) -> None:
    print_table(("", "accuracy"), [(split, percent(accuracy(result["metrics"], split))) for split in result["metrics"]])


def _print_diagnosis(result: Mapping[str, Any]) -> None:
    predicted = result["predicted"]
    interval = predicted.get("accuracy_interval")
    span = f" (90 %: {percent(interval[0])} to {percent(interval[1])})" if interval else ""
    print(f"predicted accuracy: {percent(predicted.get('accuracy'))}{span}")
    print(f"verdict: {result['verdict']['label']}: {result['verdict']['reason']}")
    names = ("n_samples", "kernel", "lambda_max", "lambda_min", "condition_number", "effective_rank", "numerical_rank")
    print_table(("spectrum", ""), [(name, result["spectrum"].get(name)) for name in names])


def _print_ranking(result: Mapping[str, Any]) -> None:
    columns = (
        "",
        "backbone",
        "input transform",
        "label mapping",
        "predicted",
        "90 %",
        "trained",
        "best",
        "probe",
        "LogME",
        "",
    )
    print_table(columns, [_ranked(place, row) for place, row in enumerate(result["cells"], 1)])
    print(f"verdict: {result['verdict']['label']}: {result['verdict']['reason']}")


def _ranked(place: int, row: Mapping[str, Any]) -> tuple[Any, ...]:
    predicted, baselines = row["predicted"] or {}, row["baselines"] or {}
    interval = predicted.get("accuracy_interval")
    return (
        place,
        row["backbone"],
        row["input_transform"]["kind"],
        row["label_mapping"]["kind"],
        percent(predicted.get("accuracy")),
        f"{percent(interval[0])} to {percent(interval[1])}" if interval else "-",
        percent(row["trained"]["validation_accuracy"]) if row["trained"] else "-",
        percent(row["probability_best"]),
        percent(baselines.get("linear_probe")),
        row["scores"]["logme"],
        row["error"]["detail"] if row["error"] and "detail" in row["error"] else "",
    )


def accuracy(values: Mapping[str, Any] | None, split: str) -> float | None:
    """The accuracy on a split: of a number, of a metrics object, or none."""
    value = (values or {}).get(split)
    return value.get("accuracy") if isinstance(value, Mapping) else value


def percent(value: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f} %"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
