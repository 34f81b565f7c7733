"""Stores and finds requests for approval. `decisions` decides them, `Flow` applies decisions.

A decision is stored under the run's lock together with what it moves. One that is made while the run is paused takes effect at
resume; one that lets a task begin while a limit leaves it no slot, when a slot is free. Closing, when a run ends, is no decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, bindparam, cast, insert, select

from interlock.core.database.tables import ApprovalRequest, WorkflowStep, new_id, table_of_model
from interlock.core.database.types import seconds_after
from interlock.core.errors import AlreadyDecided, CommandRefused, EntityNotFound
from interlock.core.model.states import StepState
from interlock.core.model.transitions import STEP_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row

    from interlock.core.machine.cause import Cause
    from interlock.core.machine.unit_of_work import UnitOfWork

__all__ = ["APPROVED", "CLOSED", "REJECTED", "ask", "decision_document", "open_request"]

APPROVED, REJECTED = "approved", "rejected"
CLOSED = "closed"  # the run ended first: no decision

_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)


def ask(
    unit: UnitOfWork, step_ids: Sequence[str], cause: Cause, spec: Mapping[str, Any] | None = None, **values: Any
) -> None:
    """Move running steps to waiting_approval, each with a request of its own.

    Args:
        unit: The run.
        step_ids: Steps that are running.
        cause: Who asks and why.
        spec: What is asked; the step's own `approval` by default.
        **values: Further columns to write with the move.
    """
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


def open_request(unit: UnitOfWork, key: str, command: str) -> Row[*tuple[Any, ...]]:
    """The request of a step that is not decided.

    Raises:
        EntityNotFound: The run has no such step.
        AlreadyDecided: Its last request was decided.
        CommandRefused: It has never asked, or its request was closed with the run.
    """
    connection, run = unit.connection, unit.run
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


def decision_document(decision: str, actor: str | None, comment: str | None) -> dict[str, Any]:
    """A decision as a step's result: `decision`, `approved`, `by` and `comment`."""
    return {"decision": decision, "approved": decision == APPROVED, "by": actor, "comment": comment}
