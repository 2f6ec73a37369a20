from itertools import pairwise

import pytest
from pydantic import ValidationError

from mr_core.trainers.gradient.spec import GradientSpec
from mr_core.trainers.schedule import learning_rate


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momentum": 0.5}, "momentum belongs to the optimizer 'sgd'"),
        ({"focal_gamma": 3.0}, "focal_gamma belongs to the loss 'focal'"),
        ({"patience": 3, "selection": "last"}, "selection must be 'best_validation'"),
        ({"warmup_steps": -1}, "greater than or equal to 0"),
        ({"schedule": "step"}, "'multi_step', 'cosine' or 'constant'"),
    ],
)
def test_refuses_what_would_be_ignored(changes, message):
    with pytest.raises(ValidationError, match=message):
        GradientSpec(**changes)


def test_cosine_falls_from_the_whole_rate_to_almost_nothing():
    spec = GradientSpec(schedule="cosine", epochs=10, learning_rate=40.0, optimizer="sgd", warmup_steps=4)
    rates = [learning_rate(spec, step=step, steps_per_epoch=10) for step in range(100)]
    assert rates[:5] == pytest.approx([8, 16, 24, 32, 40])
    assert rates[52] == pytest.approx(20)
    assert 0 < rates[99] < 0.02
    assert all(a > b for a, b in pairwise(rates[4:]))


def test_a_warm_up_longer_than_the_training_only_rises():
    spec = GradientSpec(schedule="cosine", epochs=1, warmup_steps=50)
    rates = [learning_rate(spec, step=step, steps_per_epoch=5) for step in range(5)]
    assert rates == sorted(rates)
    assert rates[-1] < spec.learning_rate


def test_the_first_epoch_has_the_whole_rate_however_few_there_are():
    rates = {
        epochs: [learning_rate(GradientSpec(epochs=epochs), step=step, steps_per_epoch=1) for step in range(epochs)]
        for epochs in (1, 2, 3, 18)
    }
    assert rates[1] == [0.01]
    assert rates[2] == pytest.approx([0.01, 0.0001])
    assert rates[3] == pytest.approx([0.01, 0.001, 0.0001])
    assert rates[18] == pytest.approx([0.01] * 9 + [0.001] * 3 + [0.0001] * 6)
