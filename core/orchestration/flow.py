"""Applies what follows from a transition: dependents start or are skipped, approved steps go on, the run ends.

`readiness` decides about one step; this module applies it to whole sets of steps, under the run's lock. It reads the steps that
changed and their dependents, never the whole plan. `StepStarter` starts steps, `run_end` stops runs; neither calls back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, bindparam, exists, select, update

from interlock.core.database.chunks import chunked
from interlock.core.database.tables import ApprovalRequest, WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.machine.attempt_columns import ENDED
from interlock.core.machine.cause import Cause
from interlock.core.machine.step_transition import StepTransition
from interlock.core.model.readiness import DependencyCounts, Readiness, readiness
from interlock.core.model.states import StepState, WorkflowState

from . import run_end
from .approvals import APPROVED, REJECTED, decision_document
from .dependency_counts import count_down, count_open, recount
from .mapped_steps import joinable
from .new_attempts import begin_attempts
from .parallel_limits import ParallelSlots, ready_rows
from .starting import StepStarter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Row

    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["Flow"]

_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)

_READY_COLUMNS = (
    _steps.c.id,
    _steps.c.key,
    _steps.c.parent_id,
    _steps.c.spec,
    _steps.c.attempt,
    _steps.c.open_deps,
    _steps.c.unmet_deps,
    _steps.c.failed_deps,
)
_COMPLETE = StepTransition(
    StepState.COMPLETED,
    _steps.c.id == bindparam("of_step"),
    **ENDED,
    result=bindparam("returned"),
    error=None,
    late=None,
    completed_at=clock(),
    carrier_id=None,
)


class Flow:
    """Applies consequences within one unit of work."""

    def __init__(self, unit: UnitOfWork, settings: Settings) -> None:
        self._unit = unit
        self._run = unit.run
        self._settings = settings
        self._starter = StepStarter(unit, settings)

    # --- starting ----------------------------------------------------------------------------------------------------

    def start_roots(self) -> None:
        """Start every step that waits for nothing; called once, when the run begins to execute."""
        roots: Sequence[Any] = [step for step in self._unit.new_steps if step.open_deps == 0]
        self._propagate(self._starter.start(roots or self._pending(_steps.c.open_deps == 0)))
        run_end.finish(self._unit)

    def reconcile(self) -> None:
        """Recount the dependencies, start every pending step whose trigger holds, and end the run if nothing is left.

        For what settled while nobody counted: during a pause, or moved by other code than the controller.
        """
        recount(self._unit.connection, self._run.id)
        ready, unreachable = _decided(self._pending(_steps.c.dispatch_check_at.is_(None)))
        settled = self._starter.start(ready)
        if self._run.is_executing:
            skipped, joined = self._starter.skip(unreachable), self._starter.join(joinable(self._unit))
            self._propagate([*settled, *skipped, *joined])
        self._run.open_steps = count_open(self._unit.connection, self._run.id)
        run_end.finish(self._unit)

    def restart(self, row: Row[*tuple[Any, ...]]) -> None:
        """Begin a running step again that had failed before it asked for its approval, or while its list was evaluated."""
        asks = (row.spec or {}).get("approval") is not None
        if asks and not self._unit.connection.scalar(select(exists().where(_requests.c.step_id == row.id))):
            self._starter.ask([row.id])
        else:
            self.resume_running(row)

    def resume_running(self, row: Row[*tuple[Any, ...]]) -> None:
        """Start the work of a step that was approved: its attempt, or its items."""
        if (row.spec or {}).get("map") is None:
            begin_attempts(self._unit, self._settings, _steps.c.id == row.id)
            return
        expanded = self._unit.connection.scalar(select(exists().where(_steps.c.parent_id == row.id)))
        self._propagate(self._starter.join([row.id]) if expanded else self._starter.expand(row))

    def refill(self) -> None:
        """Start what a limit has kept waiting, because a slot was given back."""
        self._resume_approved()
        self._propagate(self._start_waiting())

    def _pending(self, *conditions: ColumnElement[bool]) -> Sequence[Row[*tuple[Any, ...]]]:
        return self._unit.connection.execute(
            select(*_READY_COLUMNS)
            .where(_steps.c.run_id == self._run.id, _steps.c.status == StepState.PENDING.value, *conditions)
            .order_by(_steps.c.position),
        ).all()

    # --- settling ----------------------------------------------------------------------------------------------------

    def complete_step(self, step_id: str, result: Any, cause: Cause) -> None:
        """Move a running step to completed with `result`, a JSON value, and apply what follows."""
        stored = JSON.NULL if result is None else result
        self._unit.apply(_COMPLETE, cause, of_step=step_id, returned=stored)
        self.settled([step_id])

    def fail_unstarted(self, step_id: str, message: str) -> None:
        """Fail a step that cannot even start: pending → running → failed, with what follows."""
        self._starter.fail_pending(step_id, message)
        self.step_failed(step_id, message)

    def step_failed(self, step_id: str, message: str) -> None:
        """Apply the `on_failure` of a step that has failed with no retry coming."""
        row = self._unit.connection.execute(select(_steps.c.spec, _steps.c.key).where(_steps.c.id == step_id)).one()
        policy = (row.spec or {}).get("on_failure", "fail")
        if policy == "continue":
            self.settled([step_id])
        else:
            run_end.stop_after_failure(self._unit, row.key, message, pauses=policy == "pause")

    def settled(self, step_ids: Sequence[str]) -> None:
        """Apply what follows from steps that have just settled, up to the end of the run."""
        self._run.open_steps -= len(step_ids)
        if self._run.is_executing:
            self._propagate(step_ids)
            run_end.finish(self._unit)

    def _propagate(self, settled: Sequence[str]) -> None:
        while settled and self._run.is_executing:
            settled = self._follow(settled) or (self._start_waiting() if self._run.max_parallel is not None else [])

    def _follow(self, settled: Sequence[str]) -> list[str]:
        """Move the dependents of steps that have settled; returns the ids of those that settled at once."""
        self._resume_approved()
        rows = [row for ids in chunked(settled) for row in count_down(self._unit.connection, ids)]
        mapped = [
            row for row in rows if row.status == StepState.RUNNING.value and (row.spec or {}).get("map") is not None
        ]
        ready, unreachable = _decided(row for row in rows if row.status == StepState.PENDING.value and row.attempt == 0)
        now = [
            *self._starter.skip(unreachable),
            *self._starter.join([row.id for row in mapped if row.open_deps == 0]),
            *self._starter.start(ready),
        ]
        for row in mapped:
            if row.open_deps > 0 and row.spec["map"].get("max_parallel") is not None and self._run.is_executing:
                now += self._start_items(row)
        return now

    def _start_items(self, row: Row[*tuple[Any, ...]]) -> list[str]:
        """Start as many items of a limited map as there are slots for; most often one, for the one that has settled."""
        ready = ready_rows(self._unit.connection, self._run, row.id, limit=1)
        if not ready:  # nothing to count for
            return []
        slots = ParallelSlots(self._unit)
        free = slots.free_among(row)
        if free > 1:
            ready = ready_rows(self._unit.connection, self._run, row.id, limit=free)
        return self._starter.start(ready, slots) if free else []

    def _start_waiting(self) -> list[str]:
        """Start steps that are ready and wait for a slot."""
        if not self._run.is_executing or self._unit.resuming:
            return []
        slots = ParallelSlots(self._unit)
        without = slots.saturated_parents()
        return self._starter.start(ready_rows(self._unit.connection, self._run, without=without), slots)

    # --- decisions ---------------------------------------------------------------------------------------------------

    def apply_decision(
        self, request: Row[*tuple[Any, ...]], decision: str, cause: Cause, comment: str | None = None
    ) -> None:
        """Let a decision that is stored take effect, unless its step has work to do and there is no slot for it.

        Args:
            request: The request's row.
            decision: `APPROVED` or `REJECTED`.
            cause: Who has decided.
            comment: Why.
        """
        unit = self._unit
        step = unit.connection.execute(select(_steps).where(_steps.c.id == request.step_id)).one()
        ends = decision == REJECTED and (request.spec or {}).get("on_reject", "cancel") == "cancel"
        decides_only = step.task is None or (decision == REJECTED and step.task_id is None)
        works = not (ends or decides_only or (step.spec or {}).get("map") is not None)
        if works and not ParallelSlots(unit).acquire(step):
            return  # over a limit: `_resume_approved` comes back to it when a slot is free
        reason = f"{decision} by {cause.actor}" + (f": {comment}" if comment else "")
        cause = cause.because(reason, {"request_id": str(request.id)})
        if not ends:
            unit.move_run(WorkflowState.EXECUTING, cause)  # its guard asks for a decision that has not been applied
        unit.connection.execute(update(_requests).where(_requests.c.id == request.id).values(applied=True))
        if ends:
            run_end.end(unit, WorkflowState.CANCELLED, cause)
            return
        self._run.waiting_steps -= 1
        unit.move_steps(StepState.RUNNING, cause, _steps.c.id == step.id)
        if decides_only:
            self.complete_step(step.id, decision_document(decision, cause.actor, comment), cause)
        else:
            self.resume_running(step)
            run_end.finish(unit)

    def apply_stored_decisions(self) -> None:
        """Apply the decisions that were made while the run was paused or had no slot left, in the order of their making."""
        stored = self._unit.connection.execute(
            select(_requests)
            .where(
                _requests.c.run_id == self._run.id,
                _requests.c.decision.in_([APPROVED, REJECTED]),
                _requests.c.applied.is_(False),
            )
            .order_by(_requests.c.decided_at),
        ).all()
        for request in stored:
            if not self._run.is_executing:
                return  # an earlier one has cancelled the run
            self.apply_decision(request, request.decision, Cause(request.decided_by), request.comment)

    def _resume_approved(self) -> None:
        """Begin what was approved while there was no slot for it; before others, since a person asked for it."""
        if self._run.waiting_steps > 0 and self._run.is_executing and not self._unit.resuming:
            self.apply_stored_decisions()


def _decided(
    pending: Iterable[Row[*tuple[Any, ...]]],
) -> tuple[list[Row[*tuple[Any, ...]]], list[str]]:
    """The pending steps that may start, and the ids of those whose trigger cannot hold any more."""
    ready: list[Row[*tuple[Any, ...]]] = []
    unreachable: list[str] = []
    for row in pending:
        counts = DependencyCounts(open=row.open_deps, unmet=row.unmet_deps, failed=row.failed_deps)
        decision = readiness((row.spec or {}).get("trigger", "all_completed"), counts)
        if decision is Readiness.START:
            ready.append(row)
        elif decision is Readiness.SKIP:
            unreachable.append(row.id)
    return ready, unreachable
