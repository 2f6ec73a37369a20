import threading

import pytest

from worker.warm import WarmCache


def cache(max_bytes=10):
    return WarmCache(max_bytes=max_bytes, size_bytes=len)


def test_loads_once_and_evicts_the_least_recently_used():
    warm, loads = cache(), []

    def load(name, size):
        return warm.get(name, lambda: loads.append(name) or "x" * size)

    load("a", 4), load("b", 4), load("a", 4)
    assert (loads, warm.held_bytes) == (["a", "b"], 8)
    load("c", 4)
    load("a", 4)
    assert loads == ["a", "b", "c"]
    load("b", 4)
    assert loads == ["a", "b", "c", "b"]
    assert len(warm) == 2


def test_a_value_over_the_cap_is_kept_alone():
    warm = cache()
    warm.get("a", lambda: "x")
    assert warm.get("large", lambda: "x" * 50) == "x" * 50
    assert (len(warm), warm.held_bytes) == (1, 50)


def test_a_failed_load_is_raised_and_tried_again():
    warm = cache()
    with pytest.raises(OSError, match="gone"):
        warm.get("a", lambda: (_ for _ in ()).throw(OSError("gone")))
    assert warm.get("a", lambda: "x") == "x"


def test_concurrent_requests_share_one_load():
    warm, loads, at_once = cache(), [], threading.Barrier(8)

    def load():
        loads.append(1)
        return "x"

    def request():
        at_once.wait()
        warm.get("a", load)

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [1]
