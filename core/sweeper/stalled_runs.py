"""Executing runs in which nothing runs, is due, or waits for a person: a process died half-way, or somebody moved rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exists, func, or_, select

from interlock.core.database.tables import WorkflowRun, WorkflowStep, table_of_model
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.orchestration.flow import Flow

from .run_kind import NOTHING, Due, RunKind, SweepResult, without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from interlock.core.machine.unit_of_work import UnitOfWork

__all__ = ["StalledRuns"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)

_WAITING = [StepState.PAUSED.value, StepState.WAITING_APPROVAL.value]


class StalledRuns(RunKind):
    """Evaluates the whole plan of such a run again, and starts what may start."""

    name = "standstills"
    may_stay_due = True  # there may be nothing to start

    def due(self, connection: Connection, limit: int, backed_off: Sequence[str]) -> list[Due]:
        """Find them among the executing runs, in the order of their ids."""
        moving = _steps.alias("moving")
        moves = exists().where(
            moving.c.run_id == _runs.c.id, or_(moving.c.due_at.is_not(None), moving.c.status.in_(_WAITING))
        )
        query = (
            select(_runs.c.id)
            .where(_runs.c.status == WorkflowState.EXECUTING.value, ~moves, without(backed_off, _runs.c.id))
            .order_by(_runs.c.id)
            .limit(limit)
        )
        return [Due(run_id, (run_id,)) for run_id in connection.scalars(query)]

    def act(self, unit: UnitOfWork, due: Due) -> SweepResult:
        """Evaluate it, unless something moves by now."""
        if not unit.run.is_executing:
            return NOTHING
        moving = select(func.count()).where(_steps.c.run_id == due.run_id, _steps.c.due_at.is_not(None))
        if unit.connection.scalar(moving):
            return NOTHING
        before = unit.run.seq
        Flow(unit, self.settings).reconcile()
        return SweepResult(revived=int(unit.run.seq != before or bool(unit.effects.dispatches)))
