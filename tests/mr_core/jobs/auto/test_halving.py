"""Rungs and survivors, by hand."""

import pytest

from mr_core.jobs.auto.halving import rungs, survives


@pytest.mark.parametrize(
    ("least", "most", "reduction", "found"),
    [
        (2, 18, 3, [2, 6, 18]),
        (1, 27, 3, [1, 3, 9, 27]),
        (3, 20, 3, [7, 20]),
        (5, 5, 3, [5]),
        (1, 1, 2, [1]),
        (1, 2, 2, [1, 2]),
        (1, 100, 10, [1, 10, 100]),
    ],
)
def test_rungs_go_down_from_most(least, most, reduction, found):
    assert rungs(least=least, most=most, reduction=reduction) == found


def test_a_third_goes_on_and_the_best_where_there_are_fewer():
    assert survives(0, [0.5], reduction=3)
    assert [survives(n, [0.5, 0.7], reduction=3) for n in range(2)] == [False, True]
    values = [0.1, 0.6, 0.3, 0.5, 0.2, 0.4]
    assert [survives(n, values, reduction=3) for n in range(6)] == [False, True, False, True, False, False]


def test_of_equals_the_earlier_goes_on():
    assert [survives(n, [0.5] * 6, reduction=3) for n in range(6)] == [True, True, False, False, False, False]
