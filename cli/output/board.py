"""Collects a run's events: each step's state, attempt and times. No I/O; `following` draws it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from interlock.core.model.states import StepState, WorkflowState

from .wording import error_line, moment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from interlock.core.events import StateChange

__all__ = ["Board", "StepRow"]

_ENDED: Final = frozenset({StepState.COMPLETED, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED})
_URGENT: Final = (StepState.FAILED, StepState.RUNNING, StepState.PAUSED, StepState.WAITING_APPROVAL)


@dataclass(slots=True)
class StepRow:
    """What is known of one step.

    Attributes:
        key: The step.
        state: The state it is in.
        attempt: Ordinal of its attempt; 0 before the first.
        started_at: When its first attempt began.
        ended_at: When it came to an end; None while it may still go on.
        note: Why it is not simply running or done.
        changed: Ordinal of its latest change on this board.
    """

    key: str
    state: str = StepState.PENDING
    attempt: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    note: str = ""
    changed: int = 0


class Board:
    """The picture of one run; give it every change, in order.

    Args:
        run: The run's status document. Only its names are used: the states come with the changes.

    Attributes:
        name: Name of the workflow.
        state: State of the run.
        started_at: When its first change was made.
        ended_at: When it ended; None until then.
        steps: Steps by key, in the plan's order.
    """

    def __init__(self, run: Mapping[str, Any]) -> None:
        self.name = str(run.get("name") or run["run_id"])
        self.state: str = WorkflowState.DRAFT
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.steps = {step["key"]: StepRow(step["key"]) for step in run["steps"]}
        self._changes = 0

    def apply(self, change: StateChange) -> None:
        """Take in a change."""
        self._changes += 1
        at = moment(change.created_at)
        if change.step_key is None:
            self._apply_to_run(change.to_state, at)
        else:
            row = self.steps.setdefault(change.step_key, StepRow(change.step_key))
            self._apply_to_step(row, change, at)

    def progress(self, key: str, words: str) -> None:
        """Take in what a running step says of its progress; shown until its next change."""
        row = self.steps.get(key)
        if row is not None and row.state == StepState.RUNNING:
            row.note = words

    @property
    def counts(self) -> dict[str, int]:
        """How many steps are in each state, in the order of the states; states without steps are left out."""
        counted = Counter(row.state for row in self.steps.values())
        return {state.value: counted[state] for state in StepState if counted[state]}

    @property
    def settled(self) -> int:
        """How many steps have ended."""
        return sum(row.state in _ENDED for row in self.steps.values())

    def rows(self, most: int) -> list[StepRow]:
        """The steps to show: all in order where they fit, else what has failed, runs or waits, then what changed last."""
        rows = list(self.steps.values())
        if len(rows) <= most:
            return rows
        urgent = [row for state in _URGENT for row in rows if row.state == state][:most]
        shown = {row.key for row in urgent}
        latest = sorted((row for row in rows if row.changed and row.key not in shown), key=lambda row: -row.changed)
        return urgent + latest[: most - len(urgent)]

    def _apply_to_run(self, state: str, at: datetime | None) -> None:
        self.state = state
        self.started_at = self.started_at or at
        if state in (WorkflowState.COMPLETED, WorkflowState.FAILED, WorkflowState.CANCELLED):
            self.ended_at = at

    def _apply_to_step(self, row: StepRow, change: StateChange, at: datetime | None) -> None:
        row.state, row.changed = change.to_state, self._changes
        row.attempt = change.attempt or row.attempt
        if change.to_state == StepState.RUNNING:
            row.started_at = row.started_at or at
        row.ended_at = at if change.to_state in _ENDED else None
        is_plain = change.to_state in (StepState.RUNNING, StepState.COMPLETED, StepState.PENDING)
        row.note = "" if is_plain else error_line(change.reason)
