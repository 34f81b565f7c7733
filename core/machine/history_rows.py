"""Appending to the history: the rows of moves that a unit of work has made, numbered from the locked run's `seq`.

Only `unit_of_work` calls it, together with the move itself and in its transaction. Rows that are known without the database are
made here and inserted with others (`unwritten`); those of steps that a move finds in the tables are inserted at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, insert, literal, null, select

from interlock.core.database.tables import StateHistory, WorkflowStep, table_of_model
from interlock.core.database.types import Json, clock
from interlock.core.events import StateChange
from interlock.core.model.transitions import STEP_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement, Connection, Insert, Row

    from interlock.core.model.states import StepState

    from .cause import Cause
    from .run_row import LockedRun

__all__ = ["STORED", "Subject", "append_step_rows", "appending", "change_of", "change_of_row", "new_row"]

#: What the database gives a new row of the history, and its number.
STORED = ("id", "seq", "created_at")

_steps = table_of_model(WorkflowStep)
_history = table_of_model(StateHistory)

_WRITTEN = (
    "entity_type",
    "entity_id",
    "session_id",
    "workflow_id",
    "seq",
    "from_state",
    "to_state",
    "transition_reason",
    "transitioned_by",
    "step_key",
    "attempt",
    "created_at",
    "meta",
)
_RETURNED = (
    _history.c.id,
    _history.c.entity_id,
    _history.c.seq,
    _history.c.from_state,
    _history.c.to_state,
    _history.c.step_key,
    _history.c.attempt,
    _history.c.created_at,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose row it is; with the row's own columns once there is one."""

    entity_type: str
    entity_id: str
    step_key: str | None = None
    attempt: int | None = None
    seq: int = 0
    history_id: int | None = None
    created_at: Any = None


def change_of(run: LockedRun, subject: Subject, source: str | None, target: str, cause: Cause) -> StateChange:
    """The change as listeners and subscribers are told it."""
    return StateChange(
        entity_type=subject.entity_type,
        entity_id=subject.entity_id,
        session_id=run.session_id,
        workflow_id=run.id,
        seq=subject.seq,
        from_state=None if source is None else str(source),
        to_state=str(target),
        reason=cause.reason,
        transitioned_by=cause.actor,
        step_key=subject.step_key,
        attempt=subject.attempt,
        created_at=subject.created_at,
        meta=cause.meta,
        history_id=subject.history_id,
    )


def new_row(run: LockedRun, subject: Subject, source: str | None, target: str, cause: Cause) -> dict[str, Any]:
    """The next row of the run's history, to be inserted; with the columns of `_WRITTEN` but for its time."""
    run.seq += 1
    return {
        "entity_type": subject.entity_type,
        "entity_id": subject.entity_id,
        "session_id": run.session_id,
        "workflow_id": run.id,
        "seq": run.seq,
        "from_state": None if source is None else str(source),
        "to_state": str(target),
        "transition_reason": cause.reason,
        "transitioned_by": cause.actor,
        "step_key": subject.step_key,
        "attempt": subject.attempt,
        "meta": cause.meta,
    }


def change_of_row(row: Mapping[str, Any], stored: Row[*tuple[Any, ...]]) -> StateChange:
    """The change that a row of `new_row` is, with what the database gave it (`STORED`)."""
    return StateChange(
        entity_type=row["entity_type"],
        entity_id=row["entity_id"],
        session_id=row["session_id"],
        workflow_id=row["workflow_id"],
        seq=row["seq"],
        from_state=row["from_state"],
        to_state=row["to_state"],
        reason=row["transition_reason"],
        transitioned_by=row["transitioned_by"],
        step_key=row["step_key"],
        attempt=row["attempt"],
        created_at=stored.created_at,
        meta=row["meta"],
        history_id=stored.id,
    )


def appending(where: ColumnElement[bool], target: StepState | None) -> Insert:
    """The statement that appends a row for each step that meets `where`, in plan order.

    Args:
        where: Which steps.
        target: Where they move; None for the row of their creation.

    Returns:
        To be sent with `append_step_rows`.
    """
    order = func.row_number().over(order_by=(_steps.c.position, _steps.c.key))
    source = (
        select(
            literal(STEP_TABLE.entity_type),
            _steps.c.id,
            _steps.c.session_id,
            _steps.c.run_id,
            bindparam("behind", type_=_history.c.seq.type) + order,
            _steps.c.status if target is not None else null(),
            _steps.c.status if target is None else literal(target.value),
            bindparam("reason", type_=_history.c.transition_reason.type),
            bindparam("actor", type_=_history.c.transitioned_by.type),
            _steps.c.key,
            _steps.c.attempt,
            clock(),
            bindparam("about", type_=Json),
        )
        .where(where)
        # Ordered, so that id and created_at (volatile, evaluated row by row) rise with seq.
        .order_by(_steps.c.position, _steps.c.key)
    )
    return insert(_history).from_select(list(_WRITTEN), source, include_defaults=False).returning(*_RETURNED)


def append_step_rows(
    connection: Connection, run: LockedRun, statement: Insert, cause: Cause, parameters: Mapping[str, Any]
) -> list[StateChange]:
    """Append the rows of a statement of `appending`, numbered from the locked run's `seq`.

    Args:
        connection: The run's transaction.
        run: The locked run.
        statement: What appends, alone or together with the move itself.
        cause: Who and why.
        parameters: Of the statement's conditions.
    """
    told = {"behind": run.seq, "reason": cause.reason, "actor": cause.actor, "about": cause.meta}
    rows = connection.execute(statement, {**told, **parameters}).all()
    run.seq += len(rows)
    return [
        change_of(
            run,
            Subject(
                STEP_TABLE.entity_type,
                row.entity_id,
                row.step_key,
                row.attempt,
                seq=row.seq,
                history_id=row.id,
                created_at=row.created_at,
            ),
            row.from_state,
            row.to_state,
            cause,
        )
        for row in sorted(rows, key=lambda row: row.seq)
    ]
