"""The body of an answer as log-probabilities; whatever else it may be is an error that says what was found."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mr_core.backbones.remote.description import RemoteDescription
from mr_core.errors import RemoteAnswerInvalid

SUM_TOLERANCE = 0.01
"""By which an image's probabilities may miss 1: APIs round to two or three decimals. They are then divided by it."""
_LEAST = 1e-7  # a probability of 0 has no logarithm

Rows = Sequence[Any]


def decode(body: bytes, remote: RemoteDescription, classes: Sequence[str], *, n_images: int) -> NDArray[np.float32]:
    """Log-probabilities `(n_images, n_classes)`; RemoteAnswerInvalid where the answer is not what was registered.

    Of `top_k` what is left of 1 is spread evenly over the classes that are not named.
    """
    if not body.strip():
        raise RemoteAnswerInvalid("the answer is empty, expected JSON", param="backbone")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RemoteAnswerInvalid(f"the answer is not JSON: {str(error)[:200]}", param="backbone") from error
    rows = _open_inference_rows(parsed, remote) if remote.protocol == "open_inference" else _json_rows(parsed, remote)
    if len(rows) != n_images:
        raise RemoteAnswerInvalid(f"the answer has {len(rows)} rows for {n_images} images", param="backbone")
    if remote.answer == "top_k":
        return _log(np.stack([_spread(_named(row, remote), classes) for row in rows]))
    values = _matrix([_in_order(row, classes) for row in rows], len(classes))
    if remote.answer == "logits":
        shifted = values - values.max(1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)), dtype=np.float32)
    return _log(_normalised(values))


def _json_rows(parsed: Any, remote: RemoteDescription) -> Rows:
    rows = _at(parsed, remote.answers)
    if not isinstance(rows, list):
        place = f"at {remote.answers!r}" if remote.answers else "as a whole"
        raise RemoteAnswerInvalid(f"the answer has {_kind(rows)} {place}, expected a list of rows", param="backbone")
    return [_at(row, remote.row) for row in rows]


def _at(value: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise RemoteAnswerInvalid(f"the answer has nothing at {path!r}: no {name!r}", param="backbone")
    return value


def _open_inference_rows(parsed: Any, remote: RemoteDescription) -> Rows:
    outputs = parsed.get("outputs") if isinstance(parsed, dict) else None
    tensors = [one for one in outputs if isinstance(one, dict)] if isinstance(outputs, list) else []
    wanted = [one for one in tensors if remote.output in (None, one.get("name"))]
    if not wanted:
        name = "tensor" if remote.output is None else f"tensor called {remote.output!r}"
        raise RemoteAnswerInvalid(f"the answer has no output {name}", param="backbone")
    shape, data = wanted[0].get("shape"), wanted[0].get("data")
    if not _is_shape(shape) or not isinstance(data, list):
        raise RemoteAnswerInvalid("the output has no shape [images, classes] with its data", param="backbone")
    n, width = cast(list[int], shape)
    flat = [value for row in data for value in row] if data and all(isinstance(row, list) for row in data) else data
    if len(flat) != n * width:
        raise RemoteAnswerInvalid(f"the output has {len(flat)} values, its shape is {shape}", param="backbone")
    return [flat[start * width : (start + 1) * width] for start in range(n)]


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and len(shape) == 2 and all(type(side) is int and side > 0 for side in shape)


def _in_order(row: Any, classes: Sequence[str]) -> Any:
    """A row by class names in the order of the classes; any other as it is."""
    if not isinstance(row, dict):
        return row
    if set(row) != set(classes):
        raise RemoteAnswerInvalid(
            f"the answer names {len(row)} classes, {len(set(row) & set(classes))} of them among the {len(classes)} "
            "registered",
            param="backbone",
        )
    return [row[name] for name in classes]


def _matrix(rows: Rows, n_classes: int) -> NDArray[np.float64]:
    for row in rows:
        if not isinstance(row, list):
            raise RemoteAnswerInvalid(
                f"a row of the answer is {_kind(row)}, expected a list of numbers", param="backbone"
            )
        if len(row) != n_classes:
            raise RemoteAnswerInvalid(
                f"the answer has {len(row)} classes, and {n_classes} were registered", param="backbone"
            )
    return np.array([[_number(value) for value in row] for row in rows]).reshape(len(rows), n_classes)


def _normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if values.min() < -SUM_TOLERANCE or values.max() > 1 + SUM_TOLERANCE:
        raise RemoteAnswerInvalid(
            f"the answer has probabilities from {values.min():.4g} to {values.max():.4g}", param="backbone"
        )
    totals = values.sum(1, keepdims=True)
    worst = float(totals[np.abs(totals - 1).argmax(), 0])
    if abs(worst - 1) > SUM_TOLERANCE:
        raise RemoteAnswerInvalid(
            f"the probabilities of an image add up to {worst:.4g}, expected 1 within {SUM_TOLERANCE}", param="backbone"
        )
    clipped = values.clip(min=0)
    return np.asarray(clipped / clipped.sum(1, keepdims=True))


def _named(row: Any, remote: RemoteDescription) -> Mapping[Any, float]:
    """Class (its name or number) to probability, of one image."""
    pairs = list(row.items()) if isinstance(row, dict) else row
    if not isinstance(pairs, list) or not pairs:
        raise RemoteAnswerInvalid(f"a row of the answer is {_kind(row)}, expected the top classes", param="backbone")
    found: dict[Any, float] = {}
    for pair in pairs:
        label, score = _pair(pair, remote)
        if label in found:
            raise RemoteAnswerInvalid("a row of the answer names a class twice", param="backbone")
        found[label] = _number(score)
    return found


def _pair(entry: Any, remote: RemoteDescription) -> tuple[Any, Any]:
    if isinstance(entry, dict) and remote.label in entry and remote.score in entry:
        label, score = entry[remote.label], entry[remote.score]
    elif isinstance(entry, list | tuple) and len(entry) == 2:
        label, score = entry
    elif isinstance(entry, str) and entry.count(":") >= 1:  # the classification extension: score:index[:label]
        parts = entry.split(":", 2)
        label, score = _parsed(parts[1], int), _parsed(parts[0], float)
    else:
        raise RemoteAnswerInvalid(
            f"a top class is {_kind(entry)}, expected {remote.label!r} with {remote.score!r}, or a pair",
            param="backbone",
        )
    if type(label) not in (str, int):
        raise RemoteAnswerInvalid(f"the name of a class is {_kind(label)}", param="backbone")
    return label, score


def _spread(named: Mapping[Any, float], classes: Sequence[str]) -> NDArray[np.float64]:
    index = {name: i for i, name in enumerate(classes)}
    places = [index.get(label, -1) if isinstance(label, str) else label for label in named]
    unknown = [label for label, place in zip(named, places, strict=True) if not 0 <= place < len(classes)]
    if unknown:
        raise RemoteAnswerInvalid(
            "the answer names a class that was not registered, or a number beyond them", param="backbone"
        )
    if len(set(places)) != len(places):
        raise RemoteAnswerInvalid("a row of the answer names a class by name and by number", param="backbone")
    scores = np.array(list(named.values()))
    total, n_left = float(scores.sum()), len(classes) - len(places)
    is_sound = scores.min() >= -SUM_TOLERANCE and total <= 1 + SUM_TOLERANCE
    if not is_sound or (not n_left and abs(total - 1) > SUM_TOLERANCE) or total <= 0:
        raise RemoteAnswerInvalid(
            f"the probabilities of the top {len(places)} classes add up to {total:.4g}, at most 1 is expected within "
            f"{SUM_TOLERANCE}",
            param="backbone",
        )
    row = np.full(len(classes), max(0.0, 1 - total) / n_left if n_left else 0.0)
    row[places] = scores.clip(min=0)
    return np.asarray(row / row.sum())


def _log(probabilities: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(np.log(probabilities.clip(min=_LEAST)), dtype=np.float32)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RemoteAnswerInvalid(f"the answer has {_kind(value)} where a number is expected", param="backbone")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not np.isfinite(number) or abs(number) > 1e30:
        raise RemoteAnswerInvalid(f"the answer holds {number}, expected finite numbers", param="backbone")
    return number


def _parsed(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise RemoteAnswerInvalid("a top class is a text other than score:index", param="backbone") from None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
