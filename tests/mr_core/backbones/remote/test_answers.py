"""Answers read: what is sound by the numbers, what is not by name."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr_core.backbones.remote.answers import SUM_TOLERANCE, decode
from mr_core.backbones.remote.description import RemoteDescription
from mr_core.errors import RemoteAnswerInvalid

CLASSES = ("cat", "dog", "owl")


def described(**changes):
    return RemoteDescription(**{"url": "https://m", "protocol": "json", "answer": "probabilities", **changes})


def read(body, *, n=1, **changes):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return np.exp(decode(raw, described(**changes), CLASSES, n_images=n))


TENSOR = {"protocol": "open_inference"}


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ({"predictions": [[0.2, 0.3, 0.5]]}, {}),
        ({"predictions": [{"dog": 0.3, "owl": 0.5, "cat": 0.2}]}, {}),
        ([[0.2, 0.3, 0.5]], {"answers": ""}),
        ({"data": {"scores": [[0.2, 0.3, 0.5]]}}, {"answers": "data.scores"}),
        ({"data": [{"p": {"all": [0.2, 0.3, 0.5]}}]}, {"answers": "data", "row": "p.all"}),
        ([{"rows": [[0.2, 0.3, 0.5]]}], {"answers": "0.rows"}),
        ({"predictions": [[-1.609438, -1.203973, -0.693147]]}, {"answer": "logits"}),
        ({"outputs": [{"name": "a", "shape": [1, 3], "data": [0.2, 0.3, 0.5]}]}, TENSOR),
        ({"outputs": [{"name": "a", "shape": [1, 3], "data": [[0.2, 0.3, 0.5]]}]}, TENSOR),
        (
            {"outputs": [{"name": "x"}, {"name": "a", "shape": [1, 3], "data": [0.2, 0.3, 0.5]}]},
            TENSOR | {"output": "a"},
        ),
        ({"predictions": [[["owl", 0.5], ["dog", 0.3], ["cat", 0.2]]]}, {"answer": "top_k"}),
        ({"predictions": [{"owl": 0.5, "dog": 0.3}]}, {"answer": "top_k"}),
        ({"predictions": [[{"label": 2, "score": 0.5}, {"label": "dog", "score": 0.3}]]}, {"answer": "top_k"}),
        (
            {"predictions": [[{"id": 2, "p": 0.5}, {"id": 1, "p": 0.3}]]},
            {"answer": "top_k", "label": "id", "score": "p"},
        ),
        ({"outputs": [{"shape": [1, 2], "data": ["0.5:2:owl", "0.3:1"]}]}, TENSOR | {"answer": "top_k"}),
    ],
)
def test_reads(body, changes):
    assert np.allclose(read(body, **changes), [[0.2, 0.3, 0.5]], atol=1e-5)


def test_probabilities_within_the_tolerance_are_divided_by_their_sum():
    assert np.allclose(read({"predictions": [[0.2, 0.3, 0.509]]}).sum(), 1, atol=1e-6)
    assert np.allclose(read({"predictions": [[-0.001, 0.5, 0.5]]}), [[0, 0.5, 0.5]], atol=1e-6)


def test_zero_has_a_finite_logarithm():
    assert np.isfinite(decode(b'{"predictions": [[0, 0, 1]]}', described(), CLASSES, n_images=1)).all()


def test_logits_are_shifted_freely():
    a = read({"predictions": [[1000, 1001, 999]]}, answer="logits")
    assert np.allclose(a, read({"predictions": [[0, 1, -1]]}, answer="logits"))


@pytest.mark.parametrize(
    ("body", "changes", "said"),
    [
        (b"", {}, "is empty"),
        (b"  \n", {}, "is empty"),
        (b"<html>", {}, "is not JSON"),
        (b"\xff\xfe", {}, "is not JSON"),
        (b"[" * 100_000, {}, "is not JSON"),
        (b'{"predictions": [[NaN, 0.5, 0.5]]}', {}, "holds nan"),
        (b'{"predictions": [[Infinity, 0.5, 0.5]]}', {}, "holds inf"),
        (b'{"predictions": [[1e400, 0.5, 0.5]]}', {}, "holds inf"),
        (b'{"predictions": [[1' + b"0" * 400 + b", 0, 0]]}", {}, "holds inf"),
        ({"error": "x"}, {}, "nothing at 'predictions'"),
        ([], {}, "nothing at 'predictions'"),
        ({"predictions": {}}, {}, "an object at 'predictions', expected a list of rows"),
        ({"predictions": []}, {}, "0 rows for 1 images"),
        ({"predictions": [[0.5, 0.5, 0]] * 2}, {}, "2 rows for 1 images"),
        ({"predictions": [[0.5, 0.5]]}, {}, "has 2 classes, and 3 were registered"),
        ({"predictions": [[0.25] * 4]}, {}, "has 4 classes, and 3 were registered"),
        ({"predictions": [{"cat": 1.0, "cow": 0, "owl": 0}]}, {}, "names 3 classes, 2 of them among the 3"),
        ({"predictions": ["cat"]}, {}, "is a text"),
        ({"predictions": [[True, 0, 0]]}, {}, "a truth value where a number"),
        ({"predictions": [["1", 0, 0]]}, {}, "a text where a number"),
        ({"predictions": [[None, 0, 1]]}, {}, "null where a number"),
        ({"predictions": [[0.2, 0.3, 0.6]]}, {}, r"add up to 1\.1, expected 1 within 0\.01"),
        ({"predictions": [[0, 0, 0]]}, {}, "add up to 0"),
        ({"predictions": [[2, -1, 0]]}, {}, "probabilities from -1 to 2"),
        ({"predictions": [[["cow", 0.5]]]}, {"answer": "top_k"}, "not registered"),
        ({"predictions": [[[3, 0.5]]]}, {"answer": "top_k"}, "not registered"),
        ({"predictions": [[["cat", 0.5], ["cat", 0.1]]]}, {"answer": "top_k"}, "a class twice"),
        ({"predictions": [[["cat", 0.5], [0, 0.1]]]}, {"answer": "top_k"}, "by name and by number"),
        ({"predictions": [[["cat", 0.9], ["dog", 0.2]]]}, {"answer": "top_k"}, r"add up to 1\.1"),
        ({"predictions": [[["cat", -0.2]]]}, {"answer": "top_k"}, "add up to -0.2"),
        ({"predictions": [[]]}, {"answer": "top_k"}, "expected the top classes"),
        ({"predictions": [["cat"]]}, {"answer": "top_k"}, "a top class is a text"),
        ({"predictions": [[[[], 0.5]]]}, {"answer": "top_k"}, "the name of a class is a list"),
        ({"outputs": []}, TENSOR, "no output tensor"),
        ({"outputs": [{"name": "b"}]}, TENSOR | {"output": "a"}, "no output tensor called 'a'"),
        ({"outputs": [{"shape": [3], "data": [0.2, 0.3, 0.5]}]}, TENSOR, "no shape"),
        ({"outputs": [{"shape": [1, 3], "data": [0.2, 0.3]}]}, TENSOR, "2 values, its shape is"),
        ({"outputs": [{"shape": [1, -3], "data": []}]}, TENSOR, "no shape"),
        ({"outputs": [{"shape": [10**9, 10**9], "data": [1]}]}, TENSOR, "1 values"),
        ({"outputs": [{"shape": [10**12, 0], "data": []}]}, TENSOR, "no shape"),
        ({"outputs": [{"shape": [1, 2], "data": ["x:y", "0.1:1"]}]}, TENSOR | {"answer": "top_k"}, "score:index"),
    ],
)
def test_refuses_by_name(body, changes, said):
    with pytest.raises(RemoteAnswerInvalid, match=said):
        read(body, **changes)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
KINDS = st.sampled_from(
    [
        {},
        {"answer": "logits"},
        {"answer": "top_k"},
        TENSOR,
        TENSOR | {"answer": "top_k"},
        {"answers": ""},
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    body=JSON | st.builds(lambda rows: {"predictions": rows}, JSON) | st.builds(lambda t: {"outputs": [t]}, JSON),
    kind=KINDS,
)
def test_anything_else_is_an_error_of_its_own_or_sound(body, kind):
    try:
        found = decode(json.dumps(body).encode(), described(**kind), CLASSES, n_images=1)
    except RemoteAnswerInvalid:
        return
    assert found.shape == (1, 3)
    assert abs(np.exp(found).sum() - 1) < SUM_TOLERANCE


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=200))
def test_any_bytes(raw):
    with pytest.raises(RemoteAnswerInvalid):
        decode(raw, described(), CLASSES, n_images=1)
