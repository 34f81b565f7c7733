"""Reports of outcomes: one that cannot be recorded as it is leaves a failure behind, and raises nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import DataError

from interlock.core.attempts.claims import AttemptRef, Claim
from interlock.core.settings import Settings
from interlock.signals.steps import receivers
from interlock.signals.steps.held_attempt import HeldAttempt, hold_attempt

if TYPE_CHECKING:
    from interlock.core.attempts.outcomes import Failure


class Unstorable:
    """Attempts of a database that refuses each report but a plain failure."""

    def __init__(self) -> None:
        self.recorded: list[Failure] = []

    def complete_and_claim_next(self, *_: object) -> None:
        raise DataError("statement", {}, ValueError("unstorable"))

    def fail(self, _: AttemptRef, failure: Failure) -> None:
        if failure.meta:
            raise DataError("statement", {}, ValueError("unstorable"))
        self.recorded.append(failure)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Unstorable:
    attempts = Unstorable()
    runtime = SimpleNamespace(attempts=attempts, settings=Settings(report_retry_s=0))
    monkeypatch.setattr(receivers, "runtime_of", lambda _: runtime)
    return attempts


@pytest.fixture
def task() -> Any:
    """A task whose request holds an attempt."""
    request = SimpleNamespace(id="step.1", args=(), kwargs={}, timelimit=None)
    hold_attempt(request, HeldAttempt(AttemptRef("run", "step", "step.1", "token"), Claim(granted=True)))
    return SimpleNamespace(request=request, app=SimpleNamespace())


class Unreadable(dict[str, Any]):
    """A result whose own methods raise."""

    def items(self) -> Any:
        raise LookupError


@pytest.mark.parametrize(
    ("result", "message"),
    [(1, "its outcome cannot be recorded: DataError"), (Unreadable(a=1), "the result cannot be read: LookupError")],
)
def test_a_result_that_cannot_be_recorded_is_a_failure_that_says_so(
    attempts: Unstorable, task: Any, result: object, message: str
) -> None:
    receivers.report_success(task, result)
    receivers.report_unsignalled(task, "SUCCESS", result)
    assert [(failure.cause, failure.message) for failure in attempts.recorded] == [("unusable", message)]


def test_a_failure_that_cannot_be_recorded_as_it_is_is_recorded_by_its_name(attempts: Unstorable, task: Any) -> None:
    try:
        raise KeyError("a")  # noqa: TRY301 - it needs a traceback
    except KeyError as error:
        receivers.report_failure(task, error)
    (failure,) = attempts.recorded
    assert (failure.cause, failure.message, failure.exception_names[0]) == ("error", "KeyError", "builtins.KeyError")


def test_an_outcome_that_no_other_signal_told_of_is_recorded_when_the_task_ends(
    attempts: Unstorable, task: Any
) -> None:
    receivers.report_unsignalled(task, "FAILURE", KeyError("a"))
    receivers.report_unsignalled(task, "FAILURE", KeyError("b"))
    assert [failure.message for failure in attempts.recorded] == ["KeyError: 'a'"]
