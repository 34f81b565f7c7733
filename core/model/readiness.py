"""Decides whether a step may start, and what is done with an attempt's report: pure functions of states and counters.

Production's SQL and the tests' model both call these, so there is one answer. A step knows its dependencies as three counters;
the plan as a whole is never read again once it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

from .states import StepState

if TYPE_CHECKING:
    from .retry import FailureKind

__all__ = [
    "DependencyCounts",
    "Readiness",
    "ReportDisposition",
    "Trigger",
    "classify_report",
    "is_settled",
    "readiness",
]

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


class ReportDisposition(Enum):
    """What is done with the report of an attempt."""

    RECORD = "record"
    """Record it, and do what follows from it."""
    DEFER = "defer"
    """The step is paused: store the report, and record it when the step is resumed."""
    DISPATCH_SUCCESSOR = "dispatch successor"
    """The interrupted attempt has ended: dispatch the attempt that was waiting for it."""
    RELEASE = "release"
    """The interrupted attempt has ended, and no attempt waits for it."""
    STALE = "stale"
    """The attempt no longer counts: change nothing."""


def classify_report(
    state: StepState, *, holds: bool, drains: bool, failure: FailureKind | None = None
) -> ReportDisposition:
    """Decide what is done with the report of an attempt.

    Args:
        state: Where the step stands.
        holds: It is the step's current attempt, claimed with this token.
        drains: It is the attempt that was told to stop, and that the step has not given up waiting for.
        failure: How it ended; None for a result. A failure that stopping causes says nothing about the step.
    """
    if holds and state is StepState.RUNNING:
        return ReportDisposition.RECORD
    if not drains:
        return ReportDisposition.STALE
    stopped = failure in ("interrupted", "worker_lost", "shutdown", "revoked")
    if state is StepState.RUNNING:  # resumed, and the new attempt not claimed yet: a result of the old one still counts
        return ReportDisposition.DISPATCH_SUCCESSOR if stopped else ReportDisposition.RECORD
    if state is StepState.PAUSED and not stopped:
        return ReportDisposition.DEFER
    return ReportDisposition.RELEASE
