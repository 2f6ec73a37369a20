import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.batching import MicroBatcher


def ask(batcher, key, items):
    batcher.announce()
    return batcher.answer(key, items)


def test_requests_that_arrive_during_a_pass_share_the_next_by_adapter():
    passes, first_pass, release = [], threading.Event(), threading.Event()

    def compute(key, items):
        passes.append((key, sorted(items)))
        first_pass.set()
        release.wait(10)
        return [(key, item * 10) for item in items]

    batcher = MicroBatcher(compute)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, batcher, "a", [0])]
        first_pass.wait(10)
        answers += [pool.submit(ask, batcher, key, items) for key, items in (("a", [1, 2]), ("b", [3]), ("a", [4]))]
        while len(batcher._queue) < 3:
            time.sleep(0.005)
        release.set()
        assert [answer.result(10) for answer in answers] == [
            [("a", 0)],
            [("a", 10), ("a", 20)],
            [("b", 30)],
            [("a", 40)],
        ]
    assert passes[0] == ("a", [0])
    assert sorted(passes[1:]) == [("a", [1, 2, 4]), ("b", [3])]
    batcher.close()


def test_a_lone_request_does_not_wait_for_the_window():
    batcher = MicroBatcher(lambda _, items: items, window_s=5)
    started = time.monotonic()
    assert ask(batcher, "a", [1]) == [1]
    assert time.monotonic() - started < 1
    batcher.close()


def test_an_announced_request_is_waited_for_until_it_is_withdrawn():
    sizes = []
    batcher = MicroBatcher(lambda _, items: sizes.append(len(items)) or items, window_s=5)
    batcher.announce()  # its body is still being read
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, batcher, "a", [1])
        time.sleep(0.1)
        assert not first.done()
        second = pool.submit(batcher.answer, "a", [2])
        assert (first.result(5), second.result(5)) == ([1], [2])
        assert sizes == [2]
        batcher.announce()
        third = pool.submit(ask, batcher, "a", [3])
        time.sleep(0.1)
        batcher.withdraw()
        assert third.result(2) == [3]
    batcher.close()


def test_a_pass_holds_no_more_than_its_maximum_but_a_large_request_goes_whole():
    sizes = []
    batcher = MicroBatcher(lambda _, items: sizes.append(len(items)) or items, max_items=4, window_s=0.5)
    for _ in range(2):
        batcher.announce()
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(batcher.answer, "a", list(range(3))) for _ in range(2)]
        assert [answer.result(5) for answer in answers] == [[0, 1, 2], [0, 1, 2]]
    assert sizes == [3, 3]
    assert len(ask(batcher, "a", list(range(9)))) == 9
    batcher.close()


def test_an_error_reaches_every_request_of_the_pass_and_the_next_is_served():
    def compute(key, items):
        if key == "bad":
            raise ValueError("cannot")
        return items

    batcher = MicroBatcher(compute)
    with pytest.raises(ValueError, match="cannot"):
        ask(batcher, "bad", [1])
    assert ask(batcher, "good", [1]) == [1]
    batcher.close()
