import math
from pathlib import Path

import numpy as np
import pytest

from mr_core.errors import ScoreError
from mr_core.scores.nce import nce

REFERENCES = Path(__file__).parents[2] / "references"


@pytest.mark.parametrize("case", ["tall", "wide"])
def test_equals_the_published_code(case):
    reference = np.load(REFERENCES / f"transferability_{case}.npz")
    found = nce(reference["source_probabilities"], reference["labels"])
    assert found == pytest.approx(float(reference["nce"]), abs=1e-6)


def test_by_hand():
    """Source class 0 has labels 0, 0, 1 and source class 3 has label 1: H = 3/4 H(2/3, 1/3)."""
    probabilities = np.eye(4)[[0, 0, 0, 3]]
    expected = 0.75 * (2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert nce(probabilities, np.array([0, 0, 1, 1])) == pytest.approx(expected)


def test_a_function_of_the_predicted_class_leaves_nothing_unsaid():
    assert nce(np.eye(4)[[0, 1, 2, 3]], np.array([1, 1, 0, 0])) == 0


def test_one_predicted_class_leaves_the_entropy_of_the_labels():
    assert nce(np.eye(4)[[2, 2, 2, 2]], np.array([0, 1, 2, 3])) == pytest.approx(-math.log(4))


def test_refuses_rows_that_do_not_sum_to_one():
    with pytest.raises(ScoreError, match="of sample 1 sum to 2"):
        nce(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([0, 1]))
