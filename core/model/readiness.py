"""What follows a change, decided without a database.

Production's SQL and the tests' model both ask these functions, so there is one answer. A step's dependencies are known to it
as three counters; the plan as a whole is never looked at again after it was stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

from .states import StepState

if TYPE_CHECKING:
    from .retry import FailureKind

__all__ = ["DependencyCounts", "Hearing", "Readiness", "Trigger", "hear", "is_settled", "readiness"]

Trigger = Literal["all_completed", "all_settled", "any_failed"]


class Readiness(Enum):
    """What a pending step is to do."""

    WAIT = "wait"
    START = "start"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class DependencyCounts:
    """A step's dependencies, counted.

    Attributes:
        open: Not settled yet.
        unmet: Settled other than completed (failed ones included).
        failed: Settled as failed.
    """

    open: int = 0
    unmet: int = 0
    failed: int = 0

    def after(self, outcome: StepState) -> DependencyCounts:
        """The counters once one more dependency has settled as `outcome`."""
        return DependencyCounts(
            open=self.open - 1,
            unmet=self.unmet + (outcome is not StepState.COMPLETED),
            failed=self.failed + (outcome is StepState.FAILED),
        )


def readiness(trigger: Trigger, counts: DependencyCounts) -> Readiness:
    """Whether a pending step may start, must wait, or can never start."""
    if trigger == "all_settled":
        return Readiness.WAIT if counts.open else Readiness.START
    if trigger == "any_failed":
        if counts.failed:
            return Readiness.START
        return Readiness.WAIT if counts.open else Readiness.SKIP
    if counts.unmet:
        return Readiness.SKIP
    return Readiness.WAIT if counts.open else Readiness.START


def is_settled(state: StepState, *, retry_coming: bool = False) -> bool:
    """Whether nothing more will come of a step in `state`."""
    if state is StepState.FAILED:
        return not retry_coming
    return state in (StepState.COMPLETED, StepState.SKIPPED, StepState.CANCELLED)


class Hearing(Enum):
    """What is done with the report of an attempt."""

    NOW = "now"
    """It is recorded, and what follows from it is done."""
    AT_RESUME = "at resume"
    """The step is paused: it is kept, and recorded when the step goes on."""
    SUCCESSOR = "successor"
    """It only says that an attempt which was told to stop has stopped: the one that waited for this may begin."""
    LET_GO = "let go"
    """It says the same, and nobody waits for it."""
    STALE = "stale"
    """It is of an attempt that no longer counts: nothing changes."""


def hear(state: StepState, *, holds: bool, drains: bool, failure: FailureKind | None = None) -> Hearing:
    """What to do with the report of an attempt.

    Args:
        state: Where the step stands.
        holds: It is the step's current attempt, claimed with this token.
        drains: It is the attempt that was told to stop, and that the step has not given up waiting for.
        failure: How it ended; None for a result. A failure that stopping causes says nothing about the step.
    """
    if holds and state is StepState.RUNNING:
        return Hearing.NOW
    if not drains:
        return Hearing.STALE
    stopped = failure in ("interrupted", "worker_lost", "shutdown", "revoked")
    if state is StepState.RUNNING:  # resumed, but not replaced yet: what the old attempt says still counts
        return Hearing.SUCCESSOR if stopped else Hearing.NOW
    if state is StepState.PAUSED and not stopped:
        return Hearing.AT_RESUME
    return Hearing.LET_GO
