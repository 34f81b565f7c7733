"""Starts runs whose start time has come, and ends runs whose deadline has passed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import and_, or_, select, update

from interlock.core.database.tables import WorkflowRun, table_of_model
from interlock.core.database.types import clock, seconds_after
from interlock.core.errors import GuardRefused
from interlock.core.machine.cause import ENGINE, Cause
from interlock.core.model.states import WorkflowState
from interlock.core.operations.new_run import start_run
from interlock.core.orchestration import run_end

from .run_kind import NOTHING, Due, RunKind, SweepResult, without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from interlock.core.machine.unit_of_work import UnitOfWork

__all__ = ["DueRuns"]

logger = logging.getLogger("interlock.sweeper")

_runs = table_of_model(WorkflowRun)

_LIVE = (WorkflowState.EXECUTING, WorkflowState.WAITING_APPROVAL)
_TO_START = and_(_runs.c.status == WorkflowState.DRAFT.value, _runs.c.start_at <= clock())
_LATE = and_(_runs.c.status.in_([state.value for state in _LIVE]), _runs.c.deadline_at <= clock())


class DueRuns(RunKind):
    """Starts the ones and ends the others."""

    name = "runs"

    def due(self, connection: Connection, limit: int, backed_off: Sequence[str]) -> list[Due]:
        """Find them by the index of `due_at`."""
        query = (
            select(_runs.c.id)
            .where(_runs.c.due_at <= clock(), or_(_TO_START, _LATE), without(backed_off, _runs.c.id))
            .order_by(_runs.c.due_at)
            .limit(limit)
        )
        return [Due(run_id, (run_id,)) for run_id in connection.scalars(query)]

    def enter(self, due: Due) -> SweepResult:
        """Start or end the run; a start that a guard refuses is asked for again later.

        The later time is stored, so that the sweepers of a fleet ask once in that time and not each of them.
        """
        try:
            return super().enter(due)
        except GuardRefused as refusal:
            logger.info("the start of %s is postponed: %s", due.run_id, refusal)
            later = seconds_after(self.settings.redispatch_s)
            postpone = update(_runs).where(_runs.c.id == due.run_id, _TO_START).values(start_at=later)
            self.database.transact(lambda connection, _: connection.execute(postpone))
            return NOTHING

    def act(self, unit: UnitOfWork, due: Due) -> SweepResult:
        """Start a draft; end a live run, failed or cancelled."""
        is_due = select(or_(_TO_START, _LATE)).where(_runs.c.id == due.run_id)
        if not unit.connection.scalar(is_due):
            return NOTHING
        if unit.run.status is WorkflowState.DRAFT:
            start_run(unit, self.settings, Cause(ENGINE, "its start time has come"))
            return SweepResult(runs_started=1)
        cause = Cause(ENGINE, "the workflow's deadline has passed")
        # Only an executing run may fail; one that waits for a person has no other edge than cancelled.
        target = WorkflowState.FAILED if unit.run.is_executing else WorkflowState.CANCELLED
        run_end.end(unit, target, cause, error=cause.reason)
        return SweepResult(runs_overdue=1)
