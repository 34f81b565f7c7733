"""A session's commands are limited, and no other session's; and all of them together."""

from __future__ import annotations

from interlock.worker.engine.rate_limit import SESSIONS, RateLimit, TokenBucket


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_of_one_second_is_admitted_and_then_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(5, clock)
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]
    clock.now = 0.2
    assert [bucket.take() for _ in range(2)] == [True, False]


def test_one_session_does_not_use_up_what_another_may_send() -> None:
    limit = RateLimit(1, 100, Clock())
    assert limit.exceeded_by("a") is None
    assert limit.exceeded_by("a") == "over 1 commands a second in session a"
    assert limit.exceeded_by("b") is None


def test_inventing_sessions_does_not_get_more_through_than_the_total() -> None:
    clock = Clock()
    limit = RateLimit(50, 500, clock)
    assert sum(limit.exceeded_by(f"s{number}") is None for number in range(5_000)) == 500
    clock.now = 1.0
    through = [limit.exceeded_by(f"t{number}") for number in range(501)]
    assert through[-1] == "over 500 commands a second in all sessions together"
    assert through.count(None) == 500


def test_what_a_session_is_refused_is_not_counted_against_the_others() -> None:
    limit = RateLimit(1, 3, Clock())
    assert [limit.exceeded_by("loud") is None for _ in range(10)] == [True] + [False] * 9
    assert [limit.exceeded_by(name) is None for name in ("b", "c", "d")] == [True, True, False]


def test_of_any_number_of_sessions_only_so_many_are_remembered() -> None:
    limit = RateLimit(1, 1e9, Clock())
    for number in range(SESSIONS + 500):
        limit.exceeded_by(f"s{number}")
    assert len(limit._sessions) == SESSIONS
    assert limit.exceeded_by(f"s{SESSIONS + 499}") is not None, "the latest are"
