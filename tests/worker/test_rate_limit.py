"""A session's commands are limited, and no other session's."""

from __future__ import annotations

from interlock.worker.rate_limit import RateLimit


def test_a_burst_of_one_second_is_admitted_and_then_the_rate() -> None:
    now = [0.0]
    limit = RateLimit(5, lambda: now[0])
    assert [limit.admits("a") for _ in range(6)] == [True] * 5 + [False]
    now[0] = 0.2
    assert [limit.admits("a") for _ in range(2)] == [True, False]


def test_one_session_does_not_use_up_what_another_may_send() -> None:
    limit = RateLimit(1, lambda: 0.0)
    assert limit.admits("a")
    assert not limit.admits("a")
    assert limit.admits("b")
