"""Starts steps whose trigger holds, skips those whose trigger cannot hold any more, joins mapped ones.

Every method returns the ids of the steps that settled at once. What follows from these is the caller's business (`Flow`), in a
loop: with one slot, a thousand skipped steps give it back one after the other, and recursion would not survive that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from interlock.core.database.chunks import chunked
from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.errors import ExpressionError
from interlock.core.machine.attempt_columns import ENDED
from interlock.core.machine.cause import ENGINE, Cause
from interlock.core.model.states import StepState
from interlock.core.plan.expressions import truthy

from . import mapped_steps
from .approvals import ask
from .new_attempts import begin_first_attempts
from .parallel_limits import ParallelSlots, ready_rows
from .run_end import stop_after_failure
from .step_context import step_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["StepStarter"]

_steps = table_of_model(WorkflowStep)

_ASKING = Cause(ENGINE, "waits for an approval")


class StepStarter:
    """Starts, skips and joins steps of one run."""

    def __init__(self, unit: UnitOfWork, settings: Settings) -> None:
        self._unit = unit
        self._run = unit.run
        self._settings = settings

    def start(self, ready: Sequence[Row[*tuple[Any, ...]]], slots: ParallelSlots | None = None) -> list[str]:
        """Start steps whose trigger holds: each by its kind, those with work to do as far as there are slots.

        Returns:
            Ids of those that settled at once: a false condition, an empty list, or a failure without consequence.
        """
        slots = slots or ParallelSlots(self._unit)
        tasks: list[str] = []
        gates: list[str] = []
        maps: list[Row[*tuple[Any, ...]]] = []
        settled: list[str] = []
        for row in ready:
            spec = row.spec or {}
            is_gate, is_map = spec.get("approval") is not None, spec.get("map") is not None
            if not (is_gate or is_map or slots.acquire(row)):
                continue
            holds = self._condition_holds(row)
            if not self._run.is_executing:
                return []  # its condition failed, and that ended or paused the run
            if holds is None:
                settled.append(row.id)
            elif not holds:
                settled += self.skip([row.id], "its condition is false")
            elif is_gate:
                gates.append(row.id)
            elif is_map:
                maps.append(row)
            else:
                tasks.append(row.id)
        begin_first_attempts(self._unit, self._settings, tasks)
        for ids in chunked(gates):
            self._unit.move_steps(StepState.RUNNING, _ASKING, _steps.c.id.in_(ids), started_at=clock())
            self.ask(ids)
        for row in maps:  # last, so that the slots of this call's tasks are counted
            settled += self.expand(row) if self._run.is_executing else []
        return settled

    def ask(self, step_ids: Sequence[str]) -> None:
        """Have running gates wait for a person."""
        ask(self._unit, step_ids, _ASKING)

    def expand(self, row: Row[*tuple[Any, ...]]) -> list[str]:
        """Evaluate the list of a mapped step, and start its items."""
        try:
            items = mapped_steps.items_of(self._unit, self._settings, row)
        except ExpressionError as error:
            self.fail_pending(row.id, f"map: {error.detail}")
            return [row.id] if self._continues_after_failure(row.id, f"map: {error.detail}") else []
        mapped_steps.expand(self._unit, row, items, Cause(ENGINE))
        if not items:
            return self.join([row.id])
        return self.start(ready_rows(self._unit.connection, self._run, row.id, limit=len(items)))

    def join(self, step_ids: Sequence[str]) -> list[str]:
        """Complete mapped steps whose items are settled."""
        settled: list[str] = []
        for step_id in step_ids:
            if not self._run.is_executing:
                break  # the one before has failed, and that ended or paused the run
            fault = mapped_steps.join(self._unit, self._settings, step_id, Cause(ENGINE, "every item is settled"))
            if fault is None:
                self._run.open_steps -= 1
                settled.append(step_id)
                continue
            self._fail_running(step_id, fault)
            if self._continues_after_failure(step_id, fault):
                settled.append(step_id)
        return settled

    def skip(
        self, step_ids: Sequence[str], reason: str = "a dependency did not complete as its trigger needs"
    ) -> list[str]:
        """Skip pending steps."""
        for ids in chunked(step_ids):
            cause = Cause(ENGINE, reason)
            changes = self._unit.move_steps(StepState.SKIPPED, cause, _steps.c.id.in_(ids), completed_at=clock())
            self._run.open_steps -= len(changes)
        return list(step_ids)

    def fail_pending(self, step_id: str, message: str) -> None:
        """Move a step that cannot start: pending → running → failed; what follows is left to the caller."""
        self._unit.move_steps(
            StepState.RUNNING,
            Cause(ENGINE, message),
            _steps.c.id == step_id,
            _steps.c.status == StepState.PENDING.value,
            attempt=_steps.c.attempt + 1,
            started_at=func.coalesce(_steps.c.started_at, clock()),
        )
        self._fail_running(step_id, message)

    def _fail_running(self, step_id: str, message: str) -> None:
        values = {**ENDED, "error": message, "completed_at": clock()}
        self._unit.move_steps(StepState.FAILED, Cause(ENGINE, message), _steps.c.id == step_id, **values)

    def _condition_holds(self, row: Row[*tuple[Any, ...]]) -> bool | None:
        """Whether the step's condition holds; None where evaluating it failed the step and the run goes on."""
        condition = (row.spec or {}).get("when")
        if condition is None:
            return True
        try:
            return truthy(condition, step_context(self._unit.connection, self._run.id, row.id, [condition]))
        except ExpressionError as error:
            self.fail_pending(row.id, f"when: {error.detail}")
            return None if self._continues_after_failure(row.id, f"when: {error.detail}") else False

    def _continues_after_failure(self, step_id: str, message: str) -> bool:
        """Apply the `on_failure` of a step that failed at its start; False where that paused or ended the run."""
        # Not by Flow.step_failed: following up here would come back with rows that this call has decided about already.
        row = self._unit.connection.execute(select(_steps.c.spec, _steps.c.key).where(_steps.c.id == step_id)).one()
        policy = (row.spec or {}).get("on_failure", "fail")
        if policy != "continue":
            stop_after_failure(self._unit, row.key, message, pauses=policy == "pause")
            return False
        self._run.open_steps -= 1
        return True
