"""Decides requests for approval: whether the actor may, and what is stored; `Flow` applies it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from interlock.core.database.tables import ApprovalRequest, WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.errors import CommandRefused
from interlock.core.machine.guards import GuardContext, find_guard
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE

from .approvals import APPROVED
from .flow import Flow

if TYPE_CHECKING:
    from sqlalchemy import Row

    from interlock.core.machine.cause import Cause
    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["decide"]

_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)


def decide(
    unit: UnitOfWork,
    settings: Settings,
    request: Row[*tuple[Any, ...]],
    decision: str,
    *,
    cause: Cause,
    comment: str | None = None,
    by_deadline: bool = False,
) -> None:
    """Store a decision, and apply it unless the run is paused or over a limit.

    Args:
        unit: The run.
        settings: Times and limits.
        request: The open request's row.
        decision: `approvals.APPROVED` or `approvals.REJECTED`.
        cause: Who decides.
        comment: Why, for whoever reads the history.
        by_deadline: Nobody decides: the request's default does, and its approvers are not asked.

    Raises:
        CommandRefused: The actor may not decide this request.
    """
    if not by_deadline:
        _require_approver(unit, request, decision, cause)
    unit.connection.execute(
        update(_requests)
        .where(_requests.c.id == request.id, _requests.c.decision.is_(None))
        .values(decision=decision, decided_by=cause.actor, decided_at=clock(), comment=comment),
    )
    if unit.run.status is not WorkflowState.PAUSED:
        Flow(unit, settings).apply_decision(request, decision, cause, comment)


def _require_approver(unit: UnitOfWork, request: Row[*tuple[Any, ...]], decision: str, cause: Cause) -> None:
    spec = request.spec or {}
    command = "approve" if decision == APPROVED else "reject"
    approvers = spec.get("approvers") or []
    if approvers and cause.actor not in approvers:
        msg = f"{cause.actor!r} may not decide this; it is for {', '.join(approvers)}"
        raise CommandRefused(command, msg, code="not_approver")
    name = spec.get("guard")
    if name is None:
        return
    step = unit.connection.execute(select(_steps).where(_steps.c.id == request.step_id)).mappings().one()
    context = GuardContext(
        connection=unit.connection,
        entity_type=STEP_TABLE.entity_type,
        entity=step,
        from_state=step["status"],
        to_state=StepState.RUNNING.value,
        actor=cause.actor,
        reason=cause.reason,
        meta=cause.meta,
    )
    if not find_guard(name)(context):
        raise CommandRefused(command, f"guard {name!r} does not let {cause.actor!r} decide this", code="not_approver")
