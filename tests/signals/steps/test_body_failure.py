"""How a body failed, from what it raised and what it asked of `self.retry`."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import Retry

from interlock.core.attempts.claims import AttemptRef, Claim
from interlock.signals.steps.body_failure import MAX_RETRY_DELAY_S, retry_of
from interlock.signals.steps.held_attempt import HeldAttempt

if TYPE_CHECKING:
    from interlock.core.attempts.outcomes import Failure


def retried(when: Any) -> Failure:
    """How an attempt ended that asked to be tried again then."""
    task: Any = SimpleNamespace(request=SimpleNamespace(args=(), kwargs={}))
    held = HeldAttempt(AttemptRef("run", "step", "step.1", "token"), Claim(granted=True))
    return retry_of(task, held, Retry(when=when, sig=SimpleNamespace(args=(), kwargs={})))


@pytest.mark.parametrize(
    "when",
    [1.8e12, math.inf, math.nan, 10**400, MAX_RETRY_DELAY_S + 1, datetime.max, datetime.max.replace(tzinfo=UTC)],  # noqa: DTZ901
)
def test_a_retry_too_far_ahead_fails_the_step_and_says_what_it_may_be(when: Any) -> None:
    failure = retried(when)
    assert failure.cause == "unusable"
    assert "at most 31,622,400 seconds (366 days) ahead" in failure.message


@pytest.mark.parametrize("when", [None, 0, -5, -math.inf, -(10**400), datetime(1999, 1, 1), "1999-01-01T00:00:00"])  # noqa: DTZ001
def test_a_retry_at_a_time_that_has_passed_is_due_at_once(when: Any) -> None:
    failure = retried(when)
    assert (failure.cause, failure.delay_s) == ("celery_retry", 0.0)


@pytest.mark.parametrize("zone", [None, UTC, timezone(timedelta(hours=5))])
def test_an_eta_without_a_zone_is_utc(zone: timezone | None) -> None:
    when = datetime.now(zone or UTC) + timedelta(minutes=1)
    failure = retried(when if zone else when.replace(tzinfo=None))
    assert failure.delay_s == pytest.approx(60, abs=5)


def test_what_cannot_be_read_as_a_time_fails_the_step() -> None:
    assert retried(object()).message == "what the task asked of self.retry cannot be read: TypeError"
