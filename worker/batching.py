"""Joins what concurrent requests ask of the same adapter into one pass, without making a lone request wait."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Request(Generic[Key, Item, Answer]):
    key: Key
    items: Sequence[Item]
    answers: Future[list[Answer]] = field(default_factory=Future)


class MicroBatcher(Generic[Key, Item, Answer]):
    """One thread computes; requests that arrive meanwhile, or within `window_s`, share the next pass.

    `compute(key, items)` gives one answer an item, and must not let an item's answer depend on its neighbours.
    The window is only waited for while another announced request has not arrived yet.
    """

    def __init__(
        self,
        compute: Callable[[Key, list[Item]], list[Answer]],
        *,
        max_items: int = 64,
        window_s: float = 0.003,
    ) -> None:
        self._compute = compute
        self._max_items = max_items
        self._window_s = window_s
        self._changed = threading.Condition()
        self._queue: deque[_Request[Key, Item, Answer]] = deque()
        self._announced = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def announce(self) -> None:
        """A request is being read, and will call `answer` or `withdraw`."""
        with self._changed:
            self._announced += 1

    def withdraw(self) -> None:
        """An announced request will not come after all."""
        with self._changed:
            self._announced -= 1
            self._changed.notify()

    def answer(self, key: Key, items: Sequence[Item]) -> list[Answer]:
        """The answers of an announced request; raises what `compute` raised."""
        request: _Request[Key, Item, Answer] = _Request(key, items)
        with self._changed:
            self._announced -= 1
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._queue.append(request)
            self._changed.notify()
        return request.answers.result()

    def close(self) -> None:
        """Answer what is queued, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            items = [item for request in batch for item in request.items]
            try:
                answers = self._compute(batch[0].key, items)
            except Exception as error:  # every waiting request is told, and the thread serves the next
                for request in batch:
                    request.answers.set_exception(error)
                continue
            start = 0
            for request in batch:
                request.answers.set_result(answers[start : start + len(request.items)])
                start += len(request.items)

    def _next_batch(self) -> list[_Request[Key, Item, Answer]]:
        with self._changed:
            while not self._queue:
                if self._closed:
                    return []
                self._changed.wait()
            until = time.monotonic() + self._window_s
            while self._announced > 0 and not self._is_full() and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._take()

    def _is_full(self) -> bool:
        key = self._queue[0].key
        return sum(len(request.items) for request in self._queue if request.key == key) >= self._max_items

    def _take(self) -> list[_Request[Key, Item, Answer]]:
        """The oldest request and those of its adapter that fit beside it; a large one goes alone."""
        batch = [self._queue.popleft()]
        n_items = len(batch[0].items)
        others: deque[_Request[Key, Item, Answer]] = deque()
        for request in self._queue:
            if request.key == batch[0].key and n_items + len(request.items) <= self._max_items:
                batch.append(request)
                n_items += len(request.items)
            else:
                others.append(request)
        self._queue = others
        return batch
