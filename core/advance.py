"""What follows a change, decided without a database.

Production's SQL and the tests' model both ask these functions, so there is one answer. A step's dependencies are known to it
as three counters; the plan as a whole is never looked at again after it was stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from .states import StepState

__all__ = ["DependencyCounts", "Readiness", "Trigger", "is_settled", "readiness"]

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
