import pytest

from worker.progress import ProgressMeter


def measured(*steps, total=10, seconds_a_step=2.0):
    now = [0.0]
    meter = ProgressMeter(clock=lambda: now[0])
    for n, step in enumerate(steps):
        now[0] = n * seconds_a_step
        answer = meter.measure(step, total, unit="epoch")
    return answer


def test_no_estimate_before_there_is_a_pace():
    assert measured(1) == {"step": 1, "total": 10, "unit": "epoch", "percent": 10.0, "eta_s": None}


def test_rest_is_estimated_from_the_pace_so_far():
    assert measured(1, 2, 3)["eta_s"] == pytest.approx(14.0)


def test_steps_of_an_earlier_attempt_are_not_pace():
    assert measured(7, 8)["eta_s"] == pytest.approx(4.0)


def test_the_end_is_a_hundred_percent_and_nothing_left():
    assert measured(9, 10) == {"step": 10, "total": 10, "unit": "epoch", "percent": 100.0, "eta_s": 0.0}
    assert measured(0, total=0)["percent"] is None
