import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mr_core.errors import ScoreError
from mr_core.scores.leep import leep, softmax

REFERENCES = Path(__file__).parents[2] / "references"


@pytest.mark.parametrize("case", ["tall", "wide"])
def test_equals_the_published_code(case):
    reference = np.load(REFERENCES / f"transferability_{case}.npz")
    found = leep(reference["source_probabilities"], reference["labels"])
    assert found == pytest.approx(float(reference["leep"]), abs=1e-6)


def test_by_hand():
    """P(y=0|z=0) = (0.8 + 0.6) / 1.6 and P(y=0|z=1) = 0.6 / 1.4."""
    probabilities = [[0.8, 0.2], [0.6, 0.4], [0.2, 0.8]]
    zero, one = (1.4 / 1.6, 0.6 / 1.4), (0.2 / 1.6, 0.8 / 1.4)
    expected = [0.8 * zero[0] + 0.2 * zero[1], 0.6 * zero[0] + 0.4 * zero[1], 0.2 * one[0] + 0.8 * one[1]]
    assert leep(probabilities, np.array([0, 0, 1])) == pytest.approx(np.log(expected).mean())


def test_is_zero_where_source_classes_are_the_labels():
    assert leep(np.eye(3)[[0, 1, 2, 1]], np.array([2, 0, 1, 0])) == 0


def test_says_nothing_of_constant_probabilities_but_the_entropy_of_the_labels():
    found = leep(np.full((4, 5), 0.2), np.array([0, 0, 0, 1]))
    assert found == pytest.approx(0.75 * math.log(0.75) + 0.25 * math.log(0.25))


def test_a_source_class_without_mass_adds_nothing():
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.2, 0.8]])
    padded = np.hstack([probabilities, np.zeros((3, 2))])
    labels = np.array([0, 0, 1])
    assert leep(padded, labels) == pytest.approx(leep(probabilities, labels))


def test_softmax_is_that_of_the_divided_logits():
    logits = torch.tensor([[100.0, 90.0, -1000.0]], dtype=torch.float64)
    np.testing.assert_allclose(softmax(logits, temperature=10.0), torch.softmax(logits / 10, 1).numpy())
    assert softmax(logits * 1e60).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_refuses_a_temperature_that_is_not_above_zero(temperature):
    with pytest.raises(ScoreError, match="more than 0 was expected"):
        softmax(np.ones((2, 2)), temperature=temperature)


def test_refuses_logits_in_place_of_probabilities():
    with pytest.raises(ScoreError, match="source_probabilities of sample 0"):
        leep(np.array([[3.0, 1.0], [0.0, 1.0]]), np.array([0, 1]))
