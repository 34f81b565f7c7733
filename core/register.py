"""Appending to the history: the rows of moves that a unit of work has made, numbered from the locked run's `seq`.

Only `unit_of_work` calls it, together with the move itself and in its transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, literal, null, select

from .columns import Json, clock
from .events import StateChange
from .models import StateHistory, WorkflowStep, table_of_model
from .transitions import STEP_TABLE, WORKFLOW_TABLE

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from .cause import Cause
    from .locked_run import LockedRun
    from .states import StepState, WorkflowState

__all__ = ["Subject", "append_run_row", "append_step_rows", "change_of"]

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


def append_run_row(
    connection: Connection,
    run: LockedRun,
    source: WorkflowState | None,
    target: WorkflowState,
    cause: Cause,
) -> StateChange:
    """Append the row of a move of the run; `source` is None for its first row."""
    run.seq += 1
    row = connection.execute(
        insert(_history)
        .values(
            entity_type=WORKFLOW_TABLE.entity_type,
            entity_id=run.id,
            session_id=run.session_id,
            workflow_id=run.id,
            seq=run.seq,
            from_state=None if source is None else source.value,
            to_state=target.value,
            transition_reason=cause.reason,
            transitioned_by=cause.actor,
            meta=cause.meta,
            created_at=clock(),
        )
        .returning(_history.c.id, _history.c.created_at),
    ).one()
    subject = Subject(
        WORKFLOW_TABLE.entity_type,
        run.id,
        seq=run.seq,
        history_id=row.id,
        created_at=row.created_at,
    )
    return change_of(run, subject, source, target, cause)


def append_step_rows(
    connection: Connection,
    run: LockedRun,
    where: ColumnElement[bool],
    target: StepState | None,
    cause: Cause,
) -> list[StateChange]:
    """Append a row for each step that meets `where`, in plan order and in one statement, before the steps are moved.

    Args:
        connection: The run's transaction.
        run: The locked run.
        where: Which steps.
        target: Where they move; None for the row of their creation.
        cause: Who and why.
    """
    order = func.row_number().over(order_by=(_steps.c.position, _steps.c.key))
    source = (
        select(
            literal(STEP_TABLE.entity_type),
            _steps.c.id,
            _steps.c.session_id,
            _steps.c.run_id,
            literal(run.seq) + order,
            _steps.c.status if target is not None else null(),
            _steps.c.status if target is None else literal(target.value),
            literal(cause.reason, type_=_history.c.transition_reason.type),
            literal(cause.actor),
            _steps.c.key,
            _steps.c.attempt,
            clock(),
            literal(cause.meta, type_=Json),
        )
        .where(where)
        # Ordered, so that id and created_at (volatile, evaluated row by row) rise with seq.
        .order_by(_steps.c.position, _steps.c.key)
    )
    rows = connection.execute(
        insert(_history).from_select(list(_WRITTEN), source, include_defaults=False).returning(*_RETURNED),
    ).all()
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
