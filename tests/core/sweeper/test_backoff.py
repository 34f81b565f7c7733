"""Keys that are left alone for a while after they failed."""

from __future__ import annotations

from interlock.core.backoff import Backoff
from interlock.core.sweeper.backoff import KeyedBackoff


class Time:
    """A clock to be moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_pause_doubles_up_to_the_longest_and_is_forgotten_after_a_success_or_a_long_quiet() -> None:
    clock = Time()
    backoff = KeyedBackoff(Backoff(5, 60), clock)
    for pause_s in (5, 10, 20, 40, 60, 60):
        backoff.add("a")
        clock.now += pause_s - 0.1
        assert backoff.now() == ["a"]
        clock.now += 0.2
        assert backoff.now() == []
    backoff.forget("a")
    backoff.add("a")
    clock.now += 5.1
    assert backoff.now() == []
    backoff.add("a")
    clock.now += 10 + 60.1
    backoff.add("a")
    clock.now += 5.1
    assert backoff.now() == []


def test_no_more_is_remembered_than_a_statement_can_take() -> None:
    backoff = KeyedBackoff(Backoff(5, 60), lambda: 0.0)
    for number in range(6_000):
        backoff.add(str(number))
    assert backoff.now() == [str(number) for number in range(1_000, 6_000)]
