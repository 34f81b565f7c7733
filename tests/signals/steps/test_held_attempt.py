"""The attempt that a request holds; what a signal raises is kept out of a shield, and comes behind it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from interlock import StepInterrupted
from interlock.core.attempts.claims import AttemptRef, Claim
from interlock.signals.steps.held_attempt import HeldAttempt, held_attempt, hold_attempt


def _held() -> HeldAttempt:
    return HeldAttempt(AttemptRef("r", "s", "s.1", "token"), Claim(granted=True))


def test_a_request_holds_what_was_put_there_and_nothing_of_others() -> None:
    request, held = SimpleNamespace(), _held()
    assert held_attempt(request) is None
    hold_attempt(request, held)
    assert held_attempt(request) is held
    assert held_attempt(SimpleNamespace(_interlock_held="not ours")) is None


def test_what_a_signal_owes_is_raised_once_behind_the_shield() -> None:
    held = _held()

    def body() -> None:
        with held.shield():
            assert held.shielded
            held.owed = StepInterrupted()

    with pytest.raises(StepInterrupted):
        body()
    assert (held.shielded, held.owed) == (False, None)
    with held.shield():
        pass
