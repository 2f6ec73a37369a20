import numpy as np
import pytest

from mr_core.ntk.calibration import FEATURES, Calibration, Measured, above_chance, fit, left_out, share_of


def _rows(*, n_groups: int = 8, noise: float = 0.3, seed: int = 0) -> list[Measured]:
    """Log odds reached are 0.6 linearised + 0.3 probe + 0.5, and noise."""
    generator = np.random.default_rng(seed)
    rows = []
    for group in range(n_groups):
        c = int(generator.integers(2, 20))
        for _ in range(8):
            odds = {name: generator.uniform(0, 4) for name in FEATURES}
            target = 0.6 * odds["linearised"] + 0.3 * odds["linear_probe"] + 0.5 + noise * generator.standard_normal()
            shares = {name: share_of(value, c) for name, value in odds.items()}
            rows.append(Measured(str(group), shares, c, share_of(target, c)))
    return rows


def test_it_finds_the_coefficients_behind_the_rows():
    calibration = fit(_rows(n_groups=40, noise=0.05), version="test")
    assert calibration.weights == pytest.approx(
        {"linearised": 0.6, "short_training": 0, "untrained": 0, "linear_probe": 0.3}, abs=0.03
    )
    assert calibration.intercept == pytest.approx(0.5, abs=0.1)
    assert (calibration.n_rows, calibration.n_groups) == (320, 40)


def test_nine_in_ten_unseen_rows_lie_in_the_interval():
    calibration, unseen = fit(_rows(n_groups=30), version="test"), _rows(n_groups=60, seed=1)
    inside = []
    for row in unseen:
        accuracy, (low, high) = calibration.accuracy(row.shares, n_classes=row.n_classes)
        assert 0 <= low <= accuracy <= high <= 1
        inside.append(low <= row.reached <= high)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.04)


def test_a_group_does_not_touch_its_own_predictions():
    rows = _rows()
    moved = [Measured(row.group, row.shares, row.n_classes, 0.01) if row.group == "3" else row for row in rows]
    before, after = (dict(zip(range(len(rows)), (guess for _, guess in left_out(given)), strict=True))
                     for given in (rows, moved))  # fmt: skip
    own = [place for place, row in enumerate(rows) if row.group == "3"]
    assert [after[place] for place in own] == [before[place] for place in own]
    assert after[0] != before[0]


@pytest.mark.parametrize("n_classes", [2, 10, 1000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.93, 1.0])
def test_log_odds_above_chance_turn_back_into_shares(share, n_classes):
    assert share_of(above_chance(share, n_classes), n_classes) == pytest.approx(share, abs=1e-9)


def test_chance_is_zero():
    assert above_chance(0.1, 10) == pytest.approx(0, abs=0.03)  # of 200 trials


def test_leaving_one_of_two_groups_out_is_refused():
    with pytest.raises(ValueError, match="2 groups: leaving one out needs at least three"):
        fit(_rows(n_groups=2), version="test")


def test_it_survives_its_file():
    calibration = fit(_rows(), version="test")
    assert Calibration.from_json(calibration.to_json()) == calibration
