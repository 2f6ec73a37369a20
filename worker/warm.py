"""What the predictor keeps loaded: least recently used out first, under a cap of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class WarmCache(Generic[Value]):
    """Values by name, loaded once each; `size_bytes` tells what one holds.

    A value larger than the cap is kept alone until the next comes. What is evicted while in use lives until its
    last user lets go.
    """

    def __init__(self, *, max_bytes: int, size_bytes: Callable[[Value], int]) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = size_bytes
        self._values: OrderedDict[str, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def get(self, name: str, load: Callable[[], Value]) -> Value:
        """The value called `name`, by `load` where it is not held; other names are not blocked meanwhile.

        What `load` raises is raised, and nothing is kept.
        """
        with self._lock:
            if (value := self._touch(name)) is not None:
                return value
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            with self._lock:
                if (value := self._touch(name)) is not None:
                    return value
            try:
                value = load()
                with self._lock:
                    self._keep(name, value)
            finally:
                with self._lock:
                    self._loading.pop(name, None)
            return value

    def __len__(self) -> int:
        return len(self._values)

    @property
    def held_bytes(self) -> int:
        """Bytes of all that is held."""
        with self._lock:
            return sum(size for _, size in self._values.values())

    def _touch(self, name: str) -> Value | None:
        if name not in self._values:
            return None
        self._values.move_to_end(name)
        return self._values[name][0]

    def _keep(self, name: str, value: Value) -> None:
        size = self._size_bytes(value)
        total = size + sum(held for _, held in self._values.values())
        while self._values and total > self._max_bytes:
            _, (_, held) = self._values.popitem(last=False)
            total -= held
        self._values[name] = (value, size)
