"""Pauses that double up to a limit, and when the next try is due."""

from __future__ import annotations

from interlock.core.backoff import Backoff, BackoffTimer


def test_a_pause_doubles_with_each_failure_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 5.0)
    assert [backoff.pause_s(failures) for failures in (1, 2, 3, 4, 5, 6, 100_000)] == [0.5, 1, 2, 4, 5, 5, 5]
    assert backoff.pauses() == [0.5, 1, 2, 4, 5]


def test_a_first_pause_over_the_longest_is_cut() -> None:
    assert Backoff(90, 60).pause_s(1) == 60
    assert Backoff(90, 60).pauses() == [60]


def test_jitter_takes_at_most_its_share_of_a_pause() -> None:
    pauses = [Backoff(1.0, 8.0, jitter=0.5).pause_s(3) for _ in range(200)]
    assert all(2 <= pause_s <= 4 for pause_s in pauses)
    assert len(set(pauses)) > 1


def test_a_timer_waits_longer_after_each_failure_and_begins_anew_after_a_success() -> None:
    now = 100.0
    timer = BackoffTimer(Backoff(1.0, 60.0), lambda: now)
    assert timer.left_s <= 0
    timer.failed()
    assert timer.left_s == 1
    timer.failed()
    assert timer.left_s == 2
    now += 1.5
    assert timer.left_s == 0.5
    timer.hold()
    assert timer.left_s == 2
    timer.succeeded()
    assert timer.left_s <= 0
    timer.failed()
    assert timer.left_s == 1
