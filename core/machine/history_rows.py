"""Makes rows of the history, numbered from the locked run's `seq`, and the changes that listeners and subscribers get.

Only `UnitOfWork` calls this, in the transaction of the transition itself. Rows that are known without the database are made here
and inserted with others (`pending_writes`); those of steps that a transition finds in the tables are inserted at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, insert, literal, null, select

from interlock.core.database.tables import StateHistory, WorkflowStep, table_of_model
from interlock.core.database.types import Json, clock
from interlock.core.events import StateChange
from interlock.core.model.transitions import STEP_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement, Connection, Insert

    from interlock.core.model.states import StepState

    from .cause import Cause
    from .run_row import LockedRun

__all__ = ["GENERATED", "HistorySubject", "append_step_rows", "appending", "next_row", "row_of"]

GENERATED = ("id", "seq", "created_at")
"""What the database generates for a new row of the history, and the number to tell rows apart by."""

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
class HistorySubject:
    """Whose row it is; a step with its key and attempt."""

    entity_type: str
    entity_id: str
    step_key: str | None = None
    attempt: int | None = None


def row_of(run: LockedRun, subject: HistorySubject, source: str | None, target: str, cause: Cause) -> dict[str, Any]:
    """The row that a transition would write, without what is given when it is written: number, id and time."""
    return {
        "entity_type": subject.entity_type,
        "entity_id": subject.entity_id,
        "session_id": run.session_id,
        "workflow_id": run.id,
        "seq": 0,
        "from_state": None if source is None else str(source),
        "to_state": str(target),
        "transition_reason": cause.reason,
        "transitioned_by": cause.actor,
        "step_key": subject.step_key,
        "attempt": subject.attempt,
        "meta": cause.meta,
    }


def next_row(run: LockedRun, subject: HistorySubject, source: str | None, target: str, cause: Cause) -> dict[str, Any]:
    """The next row of the run's history, to be inserted."""
    run.seq += 1
    return {**row_of(run, subject, source, target, cause), "seq": run.seq}


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
    given = {"behind": run.seq, "reason": cause.reason, "actor": cause.actor, "about": cause.meta}
    rows = connection.execute(statement, {**given, **parameters}).mappings().all()
    run.seq += len(rows)
    same = {
        "entity_type": STEP_TABLE.entity_type,
        "session_id": run.session_id,
        "workflow_id": run.id,
        "transition_reason": cause.reason,
        "transitioned_by": cause.actor,
        "meta": cause.meta,
    }
    return [StateChange.from_row({**same, **row}) for row in sorted(rows, key=itemgetter("seq"))]
