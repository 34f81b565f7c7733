from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from interlock.core.model.retry import GiveUp, Retry, RetryPolicy, Tally, decide, delay_s, exception_names

POLICY = RetryPolicy(max_attempts=3, initial_delay_s=2, multiplier=3, max_delay_s=10, jitter=0)


class CardDeclinedError(ValueError):
    """Stands for an exception of a user's own."""


def test_by_default_a_failure_is_not_retried() -> None:
    """A body that failed may have had effects; repeating it is for the author to ask."""
    decision = decide(RetryPolicy(), failures=1, lost=0, kind="error")
    assert decision == GiveUp("attempt 1 of 1 failed")


def test_by_default_a_lost_worker_is_retried_twice() -> None:
    decisions = [decide(RetryPolicy(), failures=0, lost=lost, kind="worker_lost") for lost in (1, 2, 3)]
    assert [type(decision) for decision in decisions] == [Retry, Retry, GiveUp]
    assert decisions[2] == GiveUp("worker lost 3 of 3 times")


def test_lost_workers_do_not_use_up_the_attempts() -> None:
    assert isinstance(decide(POLICY, failures=2, lost=2, kind="error"), Retry)


def test_failures_do_not_use_up_the_lost_workers() -> None:
    assert isinstance(decide(POLICY, failures=2, lost=1, kind="worker_lost"), Retry)


@pytest.mark.parametrize("kind", ["shutdown", "interrupted", "revoked"])
def test_what_is_not_the_steps_doing_counts_against_nothing(
    kind: Literal["shutdown", "interrupted", "revoked"],
) -> None:
    assert decide(RetryPolicy(), failures=99, lost=99, kind=kind) == Retry(0.0)
    assert Tally(1, 2, 3).after(kind) == Tally(1, 2, 3)


def test_a_tasks_own_retry_comes_after_its_countdown_and_counts_by_itself() -> None:
    assert decide(RetryPolicy(), failures=99, lost=99, kind="celery_retry", countdown_s=7.5) == Retry(7.5)
    assert Tally().after("celery_retry") == Tally(celery_retries=1)


def test_what_cannot_be_sent_is_never_tried_again_whatever_the_policy() -> None:
    assert decide(POLICY, failures=1, lost=0, kind="unusable") == GiveUp("it cannot succeed")
    assert Tally().after("unusable") == Tally(failures=1)


@pytest.mark.parametrize("kind", ["error", "timeout"])
def test_errors_and_timeouts_are_retried_until_the_attempts_are_used_up(kind: Literal["error", "timeout"]) -> None:
    decisions = [decide(POLICY, failures=n, lost=0, kind=kind) for n in (1, 2, 3)]
    assert decisions == [Retry(2.0), Retry(6.0), GiveUp("attempt 3 of 3 failed")]


def test_the_delay_grows_by_the_multiplier_up_to_its_maximum() -> None:
    assert [delay_s(POLICY, failures) for failures in (1, 2, 3, 4)] == [2, 6, 10, 10]


def test_the_delay_stays_at_its_maximum_where_the_power_would_overflow() -> None:
    assert delay_s(POLICY, 1_000_000) == 10


def test_jitter_takes_away_up_to_its_share() -> None:
    policy = POLICY.model_copy(update={"jitter": 0.5})
    assert delay_s(policy, 1, lambda: 0.0) == 2
    assert delay_s(policy, 1, lambda: 0.5) == 1.5


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    """Any policy whose delays fit each other."""
    initial_delay_s = draw(st.floats(0, 100))
    return RetryPolicy(
        initial_delay_s=initial_delay_s,
        multiplier=draw(st.floats(1, 10)),
        max_delay_s=initial_delay_s + draw(st.floats(0, 1000)),
        jitter=draw(st.floats(0, 1)),
    )


@given(policies(), st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_delay_is_never_negative_and_never_above_the_maximum(
    policy: RetryPolicy, failures: int, chance: float
) -> None:
    assert 0 <= delay_s(policy, failures, lambda: chance) <= policy.max_delay_s


@pytest.mark.parametrize(
    "name", ["CardDeclinedError", f"{__name__}.CardDeclinedError", "ValueError", "builtins.ValueError", "Exception"]
)
def test_an_exception_or_a_base_of_it_can_be_excluded_bare_or_qualified(name: str) -> None:
    policy = POLICY.model_copy(update={"non_retryable": (name,)})
    names = exception_names(CardDeclinedError)
    decision = decide(policy, failures=1, lost=0, exception_names=names, kind="error")
    assert decision == GiveUp(f"{name} is not retried")


@pytest.mark.parametrize("name", ["KeyError", "shop.CardDeclinedError", "DeclinedError"])
def test_other_exceptions_are_still_retried(name: str) -> None:
    policy = POLICY.model_copy(update={"non_retryable": (name,)})
    names = exception_names(CardDeclinedError)
    assert isinstance(decide(policy, failures=1, lost=0, exception_names=names, kind="error"), Retry)


def test_exception_names_go_from_special_to_general_without_object() -> None:
    assert exception_names(CardDeclinedError)[0] == f"{__name__}.CardDeclinedError"
    assert exception_names(KeyError) == (
        "builtins.KeyError",
        "builtins.LookupError",
        "builtins.Exception",
        "builtins.BaseException",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": "3"},
        {"max_attempts": True},
        {"max_lost": 0},
        {"initial_delay_s": -1},
        {"multiplier": 0.5},
        {"max_delay_s": float("inf")},
        {"jitter": 1.1},
        {"max_retries": 3},
        {"initial_delay_s": 10, "max_delay_s": 5},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetryPolicy.model_validate(wrong)


def test_a_policy_survives_json_without_its_defaults() -> None:
    document = POLICY.model_dump(mode="json", exclude_defaults=True)
    assert document == {
        "max_attempts": 3,
        "initial_delay_s": 2.0,
        "multiplier": 3.0,
        "max_delay_s": 10.0,
        "jitter": 0.0,
    }
    assert RetryPolicy.model_validate(document) == POLICY
