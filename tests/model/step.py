"""The row of a step, as far as the rules look at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from interlock.core.model.readiness import DependencyCounts, is_settled
from interlock.core.model.retry import Tally
from interlock.core.model.states import StepState

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .plans import StepPlan

__all__ = ["Step"]


@dataclass(slots=True, eq=False)
class Step:
    """What the row of a step says.

    Attributes:
        plan: Its part of the plan.
        state: Its state.
        attempt: Ordinal of the current attempt, 0 before the first.
        task: Ordinal in the Celery id of the current attempt; 0 where none was ever begun.
        claim: The holder's token.
        drain: Token of an attempt that was told to stop and may still report.
        drain_task: Ordinal in the id of that attempt.
        drain_over: Whether the lease of that attempt has ended.
        counts: Its dependencies, as far as they were counted.
        tally: How its attempts have ended.
        retry_due: Whether a timer will begin its next attempt.
        send_due: Whether a timer will send its message again.
        late: What was reported or asked while it was paused: `completed`, a kind of failure, `retry` or `settle`.
        own_pause: Whether somebody paused it by itself.
        request: What became of the question: `open`, `approved`, `rejected`, `closed`; None where nobody was asked.
    """

    plan: StepPlan
    state: StepState = StepState.PENDING
    attempt: int = 0
    task: int = 0
    claim: Hashable | None = None
    drain: Hashable | None = None
    drain_task: int = 0
    drain_over: bool = False
    counts: DependencyCounts = field(default_factory=DependencyCounts)
    tally: Tally = field(default_factory=Tally)
    retry_due: bool = False
    send_due: bool = False
    late: str | None = None
    own_pause: bool = False
    request: str | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing more will come of it."""
        return is_settled(self.state, retry_coming=self.retry_due)
