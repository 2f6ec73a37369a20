"""What the tests of jobs share."""

import pytest

from mr_core.ntk import calibration
from mr_core.ntk.calibration import Calibration

WEIGHTS = {"linearised": 0.3, "short_training": 0.3, "untrained": 0.1, "linear_probe": 0.3}


@pytest.fixture
def coefficients(monkeypatch):
    """Coefficients of a calibration in force."""
    found = Calibration("test", intercept=0.2, weights=WEIGHTS, half_width=0.8, n_rows=60, n_groups=10)
    monkeypatch.setattr(calibration, "in_force", lambda: found)
    return found


@pytest.fixture(autouse=True)
def _no_coefficients(monkeypatch):
    """Those that ship are no part of what a test knows."""
    monkeypatch.setattr(calibration, "in_force", lambda: None)
