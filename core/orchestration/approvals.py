"""Questions to people: asked, decided once, applied.

A decision is stored under the run's lock together with what it moves. One that is made while the run is paused takes effect at
resume, and one that lets a task begin while a limit leaves it no place, when a place is free. Closing (a run that ends) is
not a decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, bindparam, cast, insert, select, update

from interlock.core.database.tables import ApprovalRequest, WorkflowStep, new_id, table_of_model
from interlock.core.database.types import clock, seconds_after
from interlock.core.errors import AlreadyDecided, CommandRefused, EntityNotFound
from interlock.core.machine.cause import Cause
from interlock.core.machine.guards import GuardContext, find_guard
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE

from .parallel_limits import Places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row

    from .flow import Flow

__all__ = ["APPROVED", "CLOSED", "REJECTED", "apply_stored", "ask", "decide", "decision_document", "open_request"]

APPROVED, REJECTED = "approved", "rejected"
CLOSED = "closed"  # the run ended first: no decision

_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)


def ask(
    flow: Flow, step_ids: Sequence[str], cause: Cause, spec: Mapping[str, Any] | None = None, **values: Any
) -> None:
    """Move running steps to waiting_approval, each with a request of its own.

    Args:
        flow: The run.
        step_ids: Steps that are running.
        cause: Who asks and why.
        spec: What is asked; the step's own `approval` by default.
        **values: Further columns to write with the move.
    """
    unit = flow.unit
    moved = unit.move_steps(StepState.WAITING_APPROVAL, cause, _steps.c.id.in_(step_ids), **values)
    if not moved:
        return
    stored = unit.connection.execute(select(_steps.c.id, _steps.c.spec).where(_steps.c.id.in_(step_ids)))
    own = {row.id: (row.spec or {}).get("approval") or {} for row in stored} if spec is None else {}
    asked = [(change.entity_id, dict(own[change.entity_id] if spec is None else spec)) for change in moved]
    unit.connection.execute(
        insert(_requests).values(deadline_at=seconds_after(cast(bindparam("deadline_s"), Float))),
        [
            {
                "id": new_id(),
                "run_id": unit.run.id,
                "step_id": step_id,
                "session_id": unit.run.session_id,
                "spec": question,
                "deadline_s": question.get("deadline_s"),
            }
            for step_id, question in asked
        ],
    )
    unit.run.waiting_steps += len(moved)


def open_request(flow: Flow, key: str, command: str) -> Row[*tuple[Any, ...]]:
    """The request of a step that is not decided.

    Raises:
        EntityNotFound: The run has no such step.
        AlreadyDecided: Its last request was decided.
        CommandRefused: It has never asked, or its request was closed with the run.
    """
    connection, run = flow.unit.connection, flow.unit.run
    step_id = connection.scalar(select(_steps.c.id).where(_steps.c.run_id == run.id, _steps.c.key == key))
    if step_id is None:
        raise EntityNotFound(entity_type=STEP_TABLE.entity_type, entity_id=key)
    request = connection.execute(
        select(_requests).where(_requests.c.step_id == step_id).order_by(_requests.c.requested_at.desc()).limit(1),
    ).one_or_none()
    if request is None:
        raise CommandRefused(command, f"step {key!r} asks for no approval")
    if request.decision in (APPROVED, REJECTED):
        raise AlreadyDecided(command, request.decision, request.decided_by)
    if request.decision is not None:
        raise CommandRefused(command, f"the request of step {key!r} was closed: the workflow is {run.status}")
    return request


def decide(
    flow: Flow,
    request: Row[*tuple[Any, ...]],
    decision: str,
    cause: Cause,
    comment: str | None = None,
    *,
    by_deadline: bool = False,
) -> None:
    """Store a decision, and apply it unless the run is paused or over a limit.

    Raises:
        CommandRefused: The actor may not decide this request.
    """
    connection = flow.unit.connection
    if not by_deadline:
        _require_approver(flow, request, decision, cause)
    connection.execute(
        update(_requests)
        .where(_requests.c.id == request.id, _requests.c.decision.is_(None))
        .values(decision=decision, decided_by=cause.actor, decided_at=clock(), comment=comment),
    )
    if flow.unit.run.status is not WorkflowState.PAUSED:
        _apply(flow, request, decision, cause, comment)


def apply_stored(flow: Flow) -> None:
    """Apply the decisions that were made while the run was paused or had no place left, in the order of their making."""
    stored = flow.unit.connection.execute(
        select(_requests)
        .where(
            _requests.c.run_id == flow.unit.run.id,
            _requests.c.decision.in_([APPROVED, REJECTED]),
            _requests.c.applied.is_(False),
        )
        .order_by(_requests.c.decided_at),
    ).all()
    for request in stored:
        if flow.unit.run.status is not WorkflowState.EXECUTING:
            return  # an earlier one has cancelled the run
        _apply(flow, request, request.decision, Cause(request.decided_by), request.comment)


def decision_document(decision: str, actor: str | None, comment: str | None) -> dict[str, Any]:
    """A decision as a step's result."""
    return {"decision": decision, "approved": decision == APPROVED, "by": actor, "comment": comment}


def _apply(
    flow: Flow,
    request: Row[*tuple[Any, ...]],
    decision: str,
    cause: Cause,
    comment: str | None,
) -> None:
    unit = flow.unit
    step = unit.connection.execute(select(_steps).where(_steps.c.id == request.step_id)).one()
    ends = decision == REJECTED and (request.spec or {}).get("on_reject", "cancel") == "cancel"
    decides_only = step.task is None or (decision == REJECTED and step.task_id is None)
    works = not (ends or decides_only or (step.spec or {}).get("map") is not None)
    if works and not Places(unit).take(step):
        return  # over a limit: `Flow` comes back to it when a place is free
    reason = f"{decision} by {cause.actor}" + (f": {comment}" if comment else "")
    cause = cause.because(reason, {"request_id": str(request.id)})
    if not ends:
        unit.move_run(WorkflowState.EXECUTING, cause)  # its guard asks for a decision that has not been applied
    unit.connection.execute(update(_requests).where(_requests.c.id == request.id).values(applied=True))
    if ends:
        flow.end(WorkflowState.CANCELLED, cause)
        return
    unit.run.waiting_steps -= 1
    unit.move_steps(StepState.RUNNING, cause, _steps.c.id == step.id)
    if decides_only:
        flow.complete_step(step.id, decision_document(decision, cause.actor, comment), cause)
    else:
        flow.go_on(step)
        flow.finish_run()


def _require_approver(flow: Flow, request: Row[*tuple[Any, ...]], decision: str, cause: Cause) -> None:
    spec = request.spec or {}
    command = "approve" if decision == APPROVED else "reject"
    approvers = spec.get("approvers") or []
    if approvers and cause.actor not in approvers:
        msg = f"{cause.actor!r} may not decide this; it is for {', '.join(approvers)}"
        raise CommandRefused(command, msg, code="not_approver")
    name = spec.get("guard")
    if name is None:
        return
    step = flow.unit.connection.execute(select(_steps).where(_steps.c.id == request.step_id)).mappings().one()
    context = GuardContext(
        connection=flow.unit.connection,
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
