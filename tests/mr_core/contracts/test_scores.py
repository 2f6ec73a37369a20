"""What every score keeps to."""

import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from mr_core.errors import OneClass, ScoreError
from mr_core.registry import tagged_union
from mr_core.scores import SCORES
from mr_core.scores.base import ScoreSpec

N, CLASSES = 24, 3
LABELS = np.arange(N) % CLASSES


@pytest.fixture(params=SCORES.values(), ids=SCORES.keys())
def spec(request: pytest.FixtureRequest) -> ScoreSpec:
    return request.param()


def make(seed=0, *, wide=False):
    """Inputs of every kind for 24 samples of three classes that features tell apart a little."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(N, 40 if wide else 5))
    features[:, :CLASSES] += 0.8 * np.eye(CLASSES)[LABELS]
    logits = generator.normal(size=(N, 7))
    logits[:, :CLASSES] += np.eye(CLASSES)[LABELS]
    return {
        "features": features,
        "random_features": generator.normal(size=(N, 6)),
        "source_logits": logits,
        "reference_logits": generator.normal(size=(N + 7, 7)),
        "kernel": features @ features.T + np.eye(N),
        "labels": LABELS.copy(),
    }


def read(spec, inputs):
    return {name: inputs[name] for name in spec.reads}


@pytest.mark.parametrize("wide", [False, True])
def test_gives_a_finite_float_and_leaves_its_inputs_as_they_are(spec, wide):
    inputs, before = read(spec, make(wide=wide)), make(wide=wide)
    for value in inputs.values():
        value.flags.writeable = False
    score = spec.compute(inputs)
    assert type(score) is float
    assert math.isfinite(score)
    assert all(np.array_equal(value, before[name]) for name, value in inputs.items())
    assert spec.compute(inputs) == score


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("wide", [False, True])
def test_the_order_of_samples_does_not_matter(spec, seed, wide):
    inputs = make(seed, wide=wide)
    order = np.random.default_rng(9).permutation(N)
    moved = {name: value[order] for name, value in inputs.items()}
    moved["kernel"] = inputs["kernel"][np.ix_(order, order)]
    moved["reference_logits"] = inputs["reference_logits"][::-1]
    assert spec.compute(read(spec, moved)) == pytest.approx(spec.compute(read(spec, inputs)), rel=1e-9, abs=1e-12)


def test_the_names_of_classes_do_not_matter(spec):
    inputs = make()
    renamed = inputs | {"labels": np.array([7, 0, 3])[LABELS]}
    assert spec.compute(read(spec, renamed)) == pytest.approx(spec.compute(read(spec, inputs)), rel=1e-9)


def test_tensors_give_what_arrays_give(spec):
    inputs = read(spec, make())
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    for tensor in tensors.values():
        tensor.requires_grad_(tensor.is_floating_point())
    assert spec.compute(tensors) == spec.compute(inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_tensors_are_widened_before_anything_is_computed(spec, dtype):
    tensors = {name: torch.from_numpy(value) for name, value in read(spec, make()).items()}
    narrow = {name: value.to(dtype) if value.is_floating_point() else value.int() for name, value in tensors.items()}
    wide = {name: value.double() if value.is_floating_point() else value for name, value in narrow.items()}
    assert spec.compute(narrow) == spec.compute(wide)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e200])
def test_refuses_numbers_that_are_not_finite_and_says_where(spec, value):
    for name in set(spec.reads) - {"labels"}:
        inputs = read(spec, make())
        inputs[name][3, 2] = inputs[name][2, 3] = value
        with pytest.raises(ScoreError, match=r"\[2, 3\] is .*expected"):
            spec.compute(inputs)


def test_refuses_arrays_of_the_wrong_kind(spec):
    for name in set(spec.reads) - {"labels"}:
        inputs = read(spec, make())
        broken = [inputs[name][0], inputs[name][:0], inputs[name][:, :0], inputs[name].astype(str), None]
        for value in [*broken, inputs[name].astype(complex), [[1.0, 2.0], [3.0]]]:
            with pytest.raises(ScoreError):
                spec.compute(inputs | {name: value})


def test_refuses_labels_that_are_none(spec):
    if "labels" not in spec.reads:
        return
    inputs = read(spec, make())
    broken = [LABELS[:-1], np.append(LABELS, 0), LABELS - 1, LABELS.astype(float), LABELS[:, None], LABELS[:0], None]
    for labels in [*broken, np.where(LABELS == 0, np.nan, LABELS), LABELS.astype(str)]:
        with pytest.raises(ScoreError):
            spec.compute(inputs | {"labels": labels})
    with pytest.raises(OneClass, match="all 24 labels are 2"):
        spec.compute(inputs | {"labels": np.full(N, 2)})


def test_says_what_it_reads_and_which_way_is_better(spec):
    assert spec.reads
    assert spec.direction in ("higher", "lower", "context")
    assert (spec.direction == "context") == (spec.reads == ("kernel",))


@pytest.mark.parametrize("wide", [False, True])
def test_true_labels_score_better_than_shuffled_ones_in_the_mean(spec, wide):
    if "labels" not in spec.reads:
        return
    sign = 1 if spec.direction == "higher" else -1
    margins = []
    for seed in range(10):
        inputs = make(seed, wide=wide)
        shuffled = inputs | {"labels": np.random.default_rng(seed).permutation(LABELS)}
        margins.append(sign * (spec.compute(read(spec, inputs)) - spec.compute(read(spec, shuffled))))
    assert np.mean(margins) > 0


def test_spec_survives_a_round_trip(spec):
    adapter = TypeAdapter(tagged_union(SCORES))
    assert adapter.validate_json(adapter.dump_json(spec)) == spec
