import math

import numpy as np
import pytest
import torch

from mr_core.evaluation import calibration_error, chunks, evaluate


def test_counts_by_hand():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2]]))
    found = evaluate(logits, np.array([0, 1, 1, 0]), ["a", "b", "c"])
    assert found["confusion"] == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((1 + 0.5) / 2)
    assert found["loss"] == pytest.approx(-sum(map(math.log, (0.7, 0.3, 0.8, 0.5))) / 4, rel=1e-6)
    assert found["per_class"] == [
        {"class": "a", "n": 2, "recall": 1.0, "precision": pytest.approx(2 / 3)},
        {"class": "b", "n": 2, "recall": 0.5, "precision": 1.0},
        {"class": "c", "n": 0, "recall": None, "precision": None},
    ]
    gaps = [(0.7 - 1), (0.6 - 0), (0.8 - 1), (0.5 - 1)]  # 0.7 lies in bin 10, 0.6 in 9, 0.8 in 12, 0.5 in 7
    assert found["expected_calibration_error"] == pytest.approx(sum(map(abs, gaps)) / 4, abs=1e-6)


def test_calibration_of_a_bin_is_its_mean_gap():
    confidences = torch.tensor([0.91, 0.92, 0.93, 0.92])
    assert calibration_error(confidences, torch.tensor([True, True, True, False])) == pytest.approx(0.92 - 0.75)
    assert calibration_error(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0


def test_chunks_cover_once():
    assert [list(range(10))[chunk] for chunk in chunks(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert chunks(0, 4) == []
