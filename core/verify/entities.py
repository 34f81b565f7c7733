"""Checks the rows of a run and its steps against the history and against each other, with their claims and timers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE
from interlock.core.orchestration.dependency_counts import UNSETTLED

from .findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Row

    from .replay import Replay

__all__ = ["Entities", "settled_among"]

# By value: what is checked may hold a state that does not exist.
_PENDING: Final = StepState.PENDING.value
_RUNNING: Final = StepState.RUNNING.value
_WAITING: Final = StepState.WAITING_APPROVAL.value
_PAUSED: Final = StepState.PAUSED.value
_COMPLETED: Final = StepState.COMPLETED.value
_FAILED: Final = StepState.FAILED.value
_OPEN: Final = frozenset(state.value for state in UNSETTLED)
_ENDED: Final = frozenset(state.value for state in WORKFLOW_TABLE.terminal)
_STATES: Final = frozenset(state.value for state in STEP_TABLE.states)
_UNCLAIMED: Final = frozenset({_PENDING, _RUNNING})
_KEEPS_REPORTS: Final = frozenset({_PAUSED, StepState.CANCELLED.value})


def settled_among(steps: Mapping[str, Row[*tuple[Any, ...]]]) -> frozenset[str]:
    """Ids of the steps that are settled: ended, or failed with no retry to come."""
    return frozenset(
        id_ for id_, row in steps.items() if not (row.status in _OPEN or (row.status == _FAILED and row.has_retry_at))
    )


@dataclass(frozen=True, slots=True)
class Entities:
    """The checks that need no more than the rows of a run, its steps and what their history says."""

    run: Row[*tuple[Any, ...]]
    steps: Mapping[str, Row[*tuple[Any, ...]]]
    settled: frozenset[str]
    replay: Replay

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong with them."""
        yield from self._states()
        yield from self._end_of_run()
        yield from self._limits()
        yield from self._whole_pause()
        yield from self._waiting()
        for row in self.steps.values():
            yield from self._origin(row)
            yield from self._result(row)
            yield from self._claim(row)
            yield from self._timers(row)
            yield from self._late(row)

    def without_history(self) -> int:
        """How many entities are older than the history; steps of a plan that has not begun have none yet."""
        begun = self.run.status not in (WorkflowState.DRAFT, WorkflowState.PLANNING)
        entities = [self.run.id, *(self.steps if begun else ())]
        return sum(each not in self.replay.states or each in self.replay.begun_late for each in entities)

    def _of(self, row: Row[*tuple[Any, ...]], kind: str, text: str) -> Finding:
        return Finding(kind, self.run.id, row.key, text)

    def _of_run(self, kind: str, text: str) -> Finding:
        return Finding(kind, self.run.id, "workflow", text)

    # --- against the history

    def _states(self) -> Iterator[Finding]:
        states = self.replay.states
        last = states.get(self.run.id)
        if last is not None and last != self.run.status:
            yield self._of_run("status_mismatch", f"is {self.run.status}, its history ends in {last}")
        for row in self.steps.values():
            last = states.get(row.id)
            if last is not None and last != row.status:
                yield self._of(row, "status_mismatch", f"is {row.status}, its history ends in {last}")
            if row.status not in _STATES:
                yield self._of(row, "unknown_state", f"is {row.status}: there is no such state")
            if self.replay.attempts.get(row.id, 0) > row.attempt:
                text = f"is at attempt {row.attempt}, its history at attempt {self.replay.attempts[row.id]}"
                yield self._of(row, "attempt_goes_back", text)

    def _result(self, row: Row[*tuple[Any, ...]]) -> Iterator[Finding]:
        reported_by = self.replay.reported_by.get(row.id)
        if row.status != _COMPLETED:
            if row.has_result:
                yield self._of(row, "stray_result", f"is {row.status} and has a result")
        elif reported_by is not None and not row.has_result:
            yield self._of(row, "result_missing", f"attempt {reported_by} has reported a result, and there is none")
        elif reported_by not in (None, row.task_id):
            text = f"was completed by attempt {reported_by}, and its attempt is {row.task_id}"
            yield self._of(row, "foreign_result", text)

    # --- the run and its steps

    def _origin(self, row: Row[*tuple[Any, ...]]) -> Iterator[Finding]:
        if row.session_id != self.run.session_id:
            text = f"is of session {row.session_id}, its run of {self.run.session_id}"
            yield self._of(row, "foreign_session", text)
        if row.parent_id is not None and row.parent_id not in self.steps:
            text = f"is an item of {row.parent_id}, which is no step of this run"
            yield self._of(row, "foreign_dependency", text)

    def _end_of_run(self) -> Iterator[Finding]:
        run, ended = self.run, self.run.status in _ENDED
        if run.origin_session not in (None, run.session_id):
            text = f"it is of session {run.session_id}, and continues run {run.forked_from} of {run.origin_session}"
            yield self._of_run("foreign_fork", text)
        if run.id in self.replay.states and run.has_completed_at != ended:
            yield self._of_run("end_time", f"is {run.status} {'with' if run.has_completed_at else 'without'} an end")
        if not ended:
            return
        if run.has_due_at:
            yield self._of_run("stray_timer", f"is {run.status} and due")
        for row in self.steps.values():
            if row.id not in self.settled:
                yield self._of(row, "unsettled", f"is {row.status} although the workflow is {run.status}")
            elif run.status == WorkflowState.COMPLETED.value and _counts_as_failed(row):
                yield self._of(row, "uncounted_failure", "has failed although the workflow is completed")

    def _limits(self) -> Iterator[Finding]:
        held = Counter(row.parent_id for row in self.steps.values() if row.status in _UNCLAIMED and row.task_id)
        if self.run.max_parallel is not None and held.total() > self.run.max_parallel:
            text = f"{held.total()} steps are in work, and {self.run.max_parallel} may be"
            yield self._of_run("over_the_limit", text)
        for parent_id, count in held.items():
            parent = self.steps.get(parent_id)
            if parent is not None and parent.items_limit is not None and count > parent.items_limit:
                yield self._of(parent, "over_the_limit", f"{count} items are in work, and {parent.items_limit} may be")

    def _whole_pause(self) -> Iterator[Finding]:
        if self.run.status != WorkflowState.PAUSED.value:
            return
        for row in self.steps.values():
            if row.status == _RUNNING:
                yield self._of(row, "half_paused", "runs although the workflow is paused")

    def _waiting(self) -> Iterator[Finding]:
        if self.run.status != WorkflowState.WAITING_APPROVAL.value:
            return
        if not any(row.status == _WAITING for row in self.steps.values()):
            yield self._of_run("not_waiting", "waits for an approval, and no step does")
        for row in self.steps.values():
            in_work = row.status == _RUNNING and row.task_id is not None
            if in_work or row.has_due_at or row.status == _PAUSED:
                text = f"is {row.status}, and the workflow waits as if only a person could move it"
                yield self._of(row, "not_waiting", text)

    # --- one step

    def _claim(self, row: Row[*tuple[Any, ...]]) -> Iterator[Finding]:
        if row.has_claim_token != row.has_lease_until:
            has, has_not = ("a claim", "a lease") if row.has_claim_token else ("a lease", "a claim")
            yield self._of(row, "stray_claim", f"has {has} without {has_not}")
        if row.has_claim_token and (row.status != _RUNNING or row.task_id is None):
            what = f"is {row.status}" if row.status != _RUNNING else "has no attempt"
            yield self._of(row, "stray_claim", f"{what} and is claimed")

    def _timers(self, row: Row[*tuple[Any, ...]]) -> Iterator[Finding]:
        if row.has_due_at and row.id in self.settled:
            yield self._of(row, "stray_timer", f"is {row.status} and due")
        if row.has_retry_at and row.status != _FAILED:
            yield self._of(row, "stray_timer", f"is {row.status} and is to be tried again")
        if row.has_timeout_at and not row.has_claim_token:
            yield self._of(row, "stray_timer", "has a time limit and is not claimed")
        unsent = row.status not in _UNCLAIMED or row.has_claim_token or row.task_id is None
        if row.has_dispatch_check_at and unsent:
            yield self._of(row, "stray_timer", f"is {row.status} and is to be sent again")
        if row.id in self.replay.states and row.has_completed_at != (row.id in self.settled):
            yield self._of(row, "end_time", f"is {row.status} {'with' if row.has_completed_at else 'without'} an end")

    def _late(self, row: Row[*tuple[Any, ...]]) -> Iterator[Finding]:
        if not row.has_late or self.run.status not in (WorkflowState.EXECUTING, WorkflowState.WAITING_APPROVAL):
            return
        if row.status not in _KEEPS_REPORTS:
            yield self._of(row, "late_report", f"is {row.status}, and what came while it was paused waits for a resume")


def _counts_as_failed(row: Row[*tuple[Any, ...]]) -> bool:
    return bool(row.status == _FAILED and row.on_failure != "continue")
