"""Identifiers: their form, and that they sort by time."""

import re
import time

from service.ids import new_id


def test_has_a_prefix_and_26_lower_case_characters() -> None:
    assert re.fullmatch(r"job_[0-9a-hjkmnp-tv-z]{26}", new_id("job"))


def test_sorts_by_time() -> None:
    ids = []
    for _ in range(5):
        ids.append(new_id("ds"))
        time.sleep(0.002)
    assert ids == sorted(ids)


def test_never_repeats() -> None:
    assert len({new_id("ad") for _ in range(10_000)}) == 10_000
