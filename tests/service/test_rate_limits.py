"""Limits of a minute: counted in this process, or in a Redis that several processes share."""

import structlog
from limits.storage import MemoryStorage

from service.rate_limits import WINDOW_S, RateLimiter


def test_counts_down_to_nothing_and_then_over() -> None:
    limiter = RateLimiter(None)
    standings = [limiter.hit("requests", "key_a", 2) for _ in range(3)]
    assert [standing.remaining for standing in standings] == [1, 0, 0]
    assert [standing.is_exceeded for standing in standings] == [False, False, True]
    assert all(1 <= standing.reset_s <= WINDOW_S for standing in standings)
    assert limiter.hit("requests", "key_b", 2).remaining == 1, "each key has a limit of its own"
    assert limiter.hit("other", "key_a", 2).remaining == 1


def test_a_window_ends(monkeypatch) -> None:
    limiter = RateLimiter(None)
    limiter.hit("requests", "key_a", 1)
    assert limiter.hit("requests", "key_a", 1).is_exceeded
    storage = limiter._memory
    assert isinstance(storage, MemoryStorage)
    storage.expirations = {key: moment - WINDOW_S for key, moment in storage.expirations.items()}
    assert not limiter.hit("requests", "key_a", 1).is_exceeded


def test_looking_does_not_count() -> None:
    limiter = RateLimiter(None)
    assert limiter.is_spent_here("wrong-keys", "10.0.0.1", 1) is None
    limiter.hit_here("wrong-keys", "10.0.0.1", 1)
    for _ in range(3):
        standing = limiter.is_spent_here("wrong-keys", "10.0.0.1", 1)
        assert standing is not None
        assert (standing.remaining, standing.is_exceeded) == (0, False)
    assert limiter.is_spent_here("wrong-keys", "10.0.0.2", 1) is None


def test_gateways_share_a_redis(redis_url: str) -> None:
    one, two = RateLimiter(redis_url), RateLimiter(redis_url)
    assert [limiter.hit("requests", "key_a", 3).remaining for limiter in (one, two, one, two)] == [2, 1, 0, 0]
    assert two.hit("requests", "key_a", 3).is_exceeded
    assert 1 <= two.hit("requests", "key_b", 3).reset_s <= WINDOW_S


def test_another_broker_counts_in_each_process() -> None:
    one, two = RateLimiter("amqp://localhost"), RateLimiter("amqp://localhost")
    assert [limiter.hit("requests", "key_a", 3).remaining for limiter in (one, two)] == [2, 2]


def test_a_dead_redis_refuses_nobody_and_is_told_of_once() -> None:
    limiter = RateLimiter("redis://127.0.0.1:9/0")
    with structlog.testing.capture_logs() as logs:
        assert [limiter.hit("requests", "key_a", 2).remaining for _ in range(2)] == [1, 0]
    assert len(logs) == 1
