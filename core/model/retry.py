"""Decides whether a failed attempt is tried again, and after how long.

Pure: it knows no clock, no database and no Celery. Things are told apart by their causes:

- a **failure** (the task raised, or ran into its timeout) counts against `max_attempts`, which is 1
  unless the author asks for more: a body that failed may have had effects, so repeating it is the
  author's decision;
- a **lost** attempt (its worker died) counts against `max_lost`, 3 by default: the body did nothing
  wrong, but one that kills its worker each time must not go on for ever;
- a **shutdown** of the worker, a body **interrupted** by a signal that no command and no time limit explains, and one
  **revoked** from outside count against nothing.

A task's own retry (**celery_retry**) counts against nothing here either, because its `max_retries` bounds it; what is
**unusable** (its message cannot be made) is never tried again.
"""

from __future__ import annotations

import random as _random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "FailureKind",
    "GiveUp",
    "Retry",
    "RetryPolicy",
    "Tally",
    "decide",
    "delay_s",
    "exception_names",
]

FailureKind: TypeAlias = Literal[
    "error",
    "timeout",
    "worker_lost",
    "shutdown",
    "interrupted",
    "revoked",
    "celery_retry",
    "unusable",
]
"""How an attempt ended, if not by a result."""

_ExceptionName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\s]+$", max_length=500)]
_Count: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
_Seconds: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=366 * 86_400)]


class RetryPolicy(BaseModel):
    """How often, and after what delay, a step is tried again."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
    )

    max_attempts: _Count = 1
    """Attempts that may fail, the first included: 1 never retries a failure, 5 does 4 times."""

    max_lost: _Count = 3
    """Attempts that may be lost with their worker: at this many the step fails."""

    initial_delay_s: _Seconds = 1.0
    """Seconds before the second attempt."""

    multiplier: Annotated[float, Field(strict=True, ge=1, le=1000)] = 2.0
    """By what the delay grows with each further failure; 1 keeps it constant."""

    max_delay_s: _Seconds = 300.0
    """Seconds that a delay never exceeds."""

    jitter: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.1
    """Share of the delay that is random: 0.1 is 90 to 100 % of it, 1 from none to all of it."""

    non_retryable: tuple[_ExceptionName, ...] = ()
    """Exceptions (or bases) that are never retried: `ValueError`, `shop.errors.Declined`."""

    @model_validator(mode="after")
    def _delays_fit(self) -> Self:
        if self.max_delay_s < self.initial_delay_s:
            message = (
                f"max_delay_s ({self.max_delay_s:g}) is below initial_delay_s "
                f"({self.initial_delay_s:g}): raise it or start lower"
            )
            raise ValueError(message)
        return self


@dataclass(frozen=True, slots=True)
class Tally:
    """How the attempts of a step have ended so far, if not by a result.

    Attributes:
        failures: By their own doing.
        lost: With their worker.
        celery_retries: Because the task itself asked for another one.
    """

    failures: int = 0
    lost: int = 0
    celery_retries: int = 0

    def after(self, kind: FailureKind) -> Tally:
        """The tally once one more attempt has ended by `kind`."""
        return Tally(
            failures=self.failures + (kind in ("error", "timeout", "unusable")),
            lost=self.lost + (kind == "worker_lost"),
            celery_retries=self.celery_retries + (kind == "celery_retry"),
        )


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again.

    Attributes:
        delay_s: Seconds to wait before.
    """

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The step has failed for good, as far as its policy goes.

    Attributes:
        reason: Why, in words for the history.
    """

    reason: str


def delay_s(
    policy: RetryPolicy,
    failures: int,
    random: Callable[[], float] = _random.random,
) -> float:
    """Seconds to wait after so many failures.

    Args:
        policy: The step's policy.
        failures: Attempts that have ended badly so far, at least 1.
        random: Gives a number in [0, 1); for tests.

    Returns:
        Between 0 and `policy.max_delay_s`.
    """
    try:
        full_s = policy.initial_delay_s * policy.multiplier ** max(failures - 1, 0)
    except OverflowError:
        full_s = policy.max_delay_s
    return min(full_s, policy.max_delay_s) * (1 - policy.jitter * random())


def decide(
    policy: RetryPolicy,
    *,
    failures: int,
    lost: int,
    exception_names: Iterable[str] = (),
    kind: FailureKind,
    countdown_s: float = 0.0,
    random: Callable[[], float] = _random.random,
) -> Retry | GiveUp:
    """Decide what follows from an attempt that ended without a result.

    Args:
        policy: The step's policy.
        failures: Attempts that failed by an error or a timeout, this one included if it did.
        lost: Attempts lost with their worker, this one included if it was.
        exception_names: Qualified names of the exception's class and its bases, as the function of
            that name gives them. A policy may name them bare or qualified.
        kind: How this attempt ended.
        countdown_s: With `celery_retry`, after how many seconds the task asked to be tried again.
        random: Gives a number in [0, 1); for tests.
    """
    if kind in ("shutdown", "interrupted", "revoked"):
        return Retry(0.0)
    if kind == "celery_retry":
        return Retry(max(countdown_s, 0.0))
    reason = _why_not_again(policy, failures=failures, lost=lost, exception_names=exception_names, kind=kind)
    if reason is not None:
        return GiveUp(reason)
    return Retry(delay_s(policy, lost if kind == "worker_lost" else failures, random))


def _why_not_again(
    policy: RetryPolicy, *, failures: int, lost: int, exception_names: Iterable[str], kind: FailureKind
) -> str | None:
    """Why an attempt that counts is the last one; None where it is not."""
    if kind == "unusable":
        return "it cannot succeed"
    if kind == "worker_lost":
        return f"worker lost {lost} of {policy.max_lost} times" if lost >= policy.max_lost else None
    refused = _first_match(policy.non_retryable, exception_names)
    if refused is not None:
        return f"{refused} is not retried"
    return f"attempt {failures} of {policy.max_attempts} failed" if failures >= policy.max_attempts else None


def exception_names(exception_type: type[BaseException]) -> tuple[str, ...]:
    """Qualified names of an exception class and its bases, most special first, without object."""
    return tuple(f"{cls.__module__}.{cls.__qualname__}" for cls in exception_type.__mro__ if cls is not object)


def _first_match(wanted: tuple[str, ...], given: Iterable[str]) -> str | None:
    if not wanted:
        return None
    names = set(given)
    names |= {name.rpartition(".")[2] for name in names}
    return next((name for name in wanted if name in names), None)
