"""How often somebody may do something in a minute; holds across gateways where they share a Redis broker."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from limits.storage import MemoryStorage, Storage

WINDOW_S: Final = 60

_REDIS_TIMEOUT_S = 1.0
_REDIS_PAUSE_S = 30.0  # without Redis for this long after it did not answer
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Standing:
    """What is left of a limit in its present window, which begins with its first hit."""

    limit: int
    remaining: int
    reset_s: int
    is_exceeded: bool = False


class RateLimiter:
    """Counts in fixed windows of a minute.

    `hit` counts in Redis where that is the broker, else in this process: then each gateway allows the whole limit.
    A Redis that does not answer refuses nobody: counting goes on in this process meanwhile.
    """

    def __init__(self, broker_url: str | None) -> None:
        self._redis_url = broker_url if broker_url is not None and broker_url.startswith("redis") else None
        self._redis: Storage | None = None
        self._memory: MemoryStorage | None = None
        self._redis_again_at = 0.0

    def hit(self, name: str, who: str, per_minute: int) -> Standing:
        """Count one; the standing afterwards."""
        from limits.errors import StorageError  # imported on first use: `limits` takes 0.07 s

        if self._redis_url is not None and time.monotonic() >= self._redis_again_at:
            try:
                return _hit(self._shared(self._redis_url), name, who, per_minute)
            except StorageError as error:
                self._redis_again_at = time.monotonic() + _REDIS_PAUSE_S
                _log.warning("rate limits are counted in this process: Redis does not answer", error=str(error))
        return self.hit_here(name, who, per_minute)

    def hit_here(self, name: str, who: str, per_minute: int) -> Standing:
        """Count one in this process alone; the standing afterwards."""
        return _hit(self._own(), name, who, per_minute)

    def is_spent_here(self, name: str, who: str, per_minute: int) -> Standing | None:
        """The standing in this process, without counting, if nothing is left."""
        if self._memory is None:
            return None
        n_hits = self._memory.get(_key(name, who))
        return _standing(self._memory, name, who, per_minute, n_hits) if n_hits >= per_minute else None

    def _shared(self, url: str) -> "Storage":
        if self._redis is None:
            from limits.storage.redis import RedisStorage

            self._redis = RedisStorage(
                url,
                key_prefix="mr-limits",
                wrap_exceptions=True,
                socket_timeout=_REDIS_TIMEOUT_S,
                socket_connect_timeout=_REDIS_TIMEOUT_S,
            )
        return self._redis

    def _own(self) -> "MemoryStorage":
        if self._memory is None:
            from limits.storage import MemoryStorage

            self._memory = MemoryStorage()
        return self._memory


def _hit(storage: "Storage", name: str, who: str, per_minute: int) -> Standing:
    return _standing(storage, name, who, per_minute, storage.incr(_key(name, who), WINDOW_S))


def _standing(storage: "Storage", name: str, who: str, per_minute: int, n_hits: int) -> Standing:
    reset_s = round(storage.get_expiry(_key(name, who)) - time.time())
    return Standing(
        limit=per_minute,
        remaining=max(0, per_minute - n_hits),
        reset_s=max(1, min(WINDOW_S, reset_s)),
        is_exceeded=n_hits > per_minute,
    )


def _key(name: str, who: str) -> str:
    return f"{name}/{who}"
