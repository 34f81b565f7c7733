"""Decides requests for approval whose deadline has passed, as the plan says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from interlock.core.database.tables import ApprovalRequest, WorkflowRun, table_of_model
from interlock.core.database.types import clock
from interlock.core.machine.cause import ENGINE, Cause
from interlock.core.model.states import WorkflowState
from interlock.core.orchestration import approvals
from interlock.core.orchestration.decisions import decide

from .run_kind import NOTHING, Due, RunKind, SweepResult, without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from interlock.core.machine.unit_of_work import UnitOfWork

__all__ = ["ApprovalDeadlines"]

_runs = table_of_model(WorkflowRun)
_requests = table_of_model(ApprovalRequest)

_OVERDUE = (_requests.c.decision.is_(None), _requests.c.deadline_at <= clock())


class ApprovalDeadlines(RunKind):
    """Decides them by their default; those of a paused run wait with it."""

    name = "approvals"

    def due(self, connection: Connection, limit: int, backed_off: Sequence[str]) -> list[Due]:
        """Find them by the index of `deadline_at`."""
        query = (
            select(_requests.c.run_id, _requests.c.id)
            .join(_runs, _runs.c.id == _requests.c.run_id)
            .where(
                *_OVERDUE,
                _runs.c.status.in_([WorkflowState.EXECUTING.value, WorkflowState.WAITING_APPROVAL.value]),
                without(backed_off, _requests.c.run_id),
            )
            .order_by(_requests.c.deadline_at)
            .limit(limit)
        )
        return [Due(row.run_id, (row.id,)) for row in connection.execute(query)]

    def act(self, unit: UnitOfWork, due: Due) -> SweepResult:
        """Decide the request, unless somebody has."""
        query = select(_requests).where(_requests.c.id == due.ids[0], *_OVERDUE)
        request = unit.connection.execute(query).one_or_none()
        if request is None or unit.run.status is WorkflowState.PAUSED:
            return NOTHING
        decision = approvals.APPROVED if (request.spec or {}).get("default") == "approve" else approvals.REJECTED
        cause = Cause(ENGINE, "the deadline of the approval has passed")
        decide(unit, self.settings, request, decision, cause=cause, by_deadline=True)
        return SweepResult(decided=1)
