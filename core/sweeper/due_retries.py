"""Starts the next attempt of failed steps whose retry is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from interlock.core.attempts.outcomes import retry_now
from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.machine.cause import ENGINE, Cause
from interlock.core.model.states import StepState
from interlock.core.orchestration.parallel_limits import ParallelSlots

from .run_kind import EXECUTING, NOTHING, Due, RunKind, SweepResult, without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from interlock.core.machine.unit_of_work import UnitOfWork

__all__ = ["DueRetries"]

_steps = table_of_model(WorkflowStep)


class DueRetries(RunKind):
    """Starts the next attempts, all of a run together."""

    name = "retries"
    may_stay_due = True  # a retry that a person asked for may be one too many for a limit

    def due(self, connection: Connection, limit: int, backed_off: Sequence[str]) -> list[Due]:
        """Find them by the index of `due_at`."""
        query = (
            select(_steps.c.run_id, _steps.c.id)
            .where(
                _steps.c.due_at <= clock(),
                _steps.c.status == StepState.FAILED.value,
                _steps.c.retry_at <= clock(),
                EXECUTING,
                without(backed_off, _steps.c.run_id),
            )
            .order_by(_steps.c.due_at)
            .limit(limit)
        )
        by_run: dict[str, list[str]] = {}
        for row in connection.execute(query):
            by_run.setdefault(row.run_id, []).append(row.id)
        return [Due(run_id, tuple(step_ids)) for run_id, step_ids in by_run.items()]

    def act(self, unit: UnitOfWork, due: Due) -> SweepResult:
        """Start as many as the limits on parallel work admit."""
        if not unit.run.is_executing:
            return NOTHING
        rows = unit.connection.execute(
            select(_steps.c.id, _steps.c.parent_id, _steps.c.spec)
            .where(_steps.c.id.in_(due.ids), _steps.c.retry_at <= clock())
            .order_by(_steps.c.retry_at),
        ).all()
        slots = ParallelSlots(unit, without=[row.id for row in rows])
        step_ids = [row.id for row in rows if slots.acquire(row)]
        retry_now(unit, self.settings, step_ids, Cause(ENGINE, "retry"))
        return SweepResult(retried=len(step_ids))
