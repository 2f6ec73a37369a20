from dataclasses import FrozenInstanceError

import pytest

from mr_core.datasets.limits import DEFAULT_LIMITS


def test_defaults_are_those_the_service_states():
    assert DEFAULT_LIMITS.entries == 200_000
    assert DEFAULT_LIMITS.inflation_ratio == 100
    assert DEFAULT_LIMITS.image_pixels == 40_000_000


def test_is_frozen():
    with pytest.raises(FrozenInstanceError):
        DEFAULT_LIMITS.entries = 1
