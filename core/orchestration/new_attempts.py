"""Gives steps new attempts, and has their messages sent after the commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, String, bindparam, case, cast, literal, update

from interlock.core.database.chunks import chunked
from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import clock, seconds_after
from interlock.core.machine.attempt_columns import DISPATCH_COLUMNS, NO_CLAIM, dispatch_of, first_attempt_id
from interlock.core.model.states import StepState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.sql.dml import ReturningUpdate

    from interlock.core.machine.pending_writes import NewStep
    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["begin_attempts", "begin_attempts_of", "begin_first_attempts", "dispatch", "redispatch_pending"]

_steps = table_of_model(WorkflowStep)

_DRAINING = _steps.c.drain_until > clock()


def _new_attempt() -> dict[str, Any]:
    """Columns of a fresh attempt with an id of its own; a draining predecessor delays its dispatch."""
    attempt = _steps.c.attempt + 1
    return {
        "attempt": attempt,
        "task_id": cast(_steps.c.id, String) + literal(".") + cast(attempt, String),
        **NO_CLAIM,
        "dispatches": 1,
        "dispatch_check_at": case(
            (_DRAINING, _steps.c.drain_until),
            else_=seconds_after(cast(bindparam("redispatch_s"), Float)),
        ),
        "drain_task_id": case((_DRAINING, _steps.c.drain_task_id)),
        "drain_token": case((_DRAINING, _steps.c.drain_token)),
        "drain_until": case((_DRAINING, _steps.c.drain_until)),
    }


# Built once: a step that is done costs one of them for what it makes ready.
_BEGIN = (
    update(_steps).where(_steps.c.run_id == bindparam("of_run")).values(_new_attempt()).returning(*DISPATCH_COLUMNS)
)
_BEGIN_OF = _BEGIN.where(_steps.c.id.in_(bindparam("step_ids", expanding=True)))
_BEGIN_PENDING = _BEGIN_OF.where(_steps.c.status == StepState.PENDING.value)


def begin_attempts(unit: UnitOfWork, settings: Settings, *conditions: ColumnElement[bool]) -> None:
    """Give the run's steps that meet `conditions` a new attempt, and have it dispatched after the commit."""
    _begin(unit, settings, _BEGIN.where(*conditions))


def begin_attempts_of(unit: UnitOfWork, settings: Settings, step_ids: Sequence[str]) -> None:
    """The same for the steps with these ids."""
    for ids in chunked(step_ids):
        _begin(unit, settings, _BEGIN_OF, step_ids=list(ids))


def _begin(unit: UnitOfWork, settings: Settings, statement: ReturningUpdate[Any], **parameters: Any) -> None:
    known = {"of_run": unit.run.id, "redispatch_s": settings.redispatch_s}
    dispatch(unit, unit.connection.execute(statement, {**known, **parameters}).all())


def begin_first_attempts(unit: UnitOfWork, settings: Settings, step_ids: Sequence[str]) -> None:
    """Give pending steps their first attempt, and have it dispatched after the commit; new steps are stored with it."""
    new = {step.id: step for step in unit.new_steps}
    if new:
        beginning = [new[step_id] for step_id in step_ids]
        for step in beginning:
            step.attempt = step.dispatches = 1
            step.task_id = first_attempt_id(step.id)
            step.dispatch_check_at = settings.redispatch_s
        dispatch(unit, beginning)
        return
    for ids in chunked(step_ids):
        _begin(unit, settings, _BEGIN_PENDING, step_ids=list(ids))


def redispatch_pending(unit: UnitOfWork, settings: Settings) -> None:
    """Dispatch again the pending steps that were ready before a pause; their attempts keep their ids."""
    rows = unit.connection.execute(
        update(_steps)
        .where(
            _steps.c.run_id == unit.run.id,
            _steps.c.status == StepState.PENDING.value,
            _steps.c.task_id.is_not(None),
        )
        .values(dispatch_check_at=seconds_after(settings.redispatch_s), dispatches=_steps.c.dispatches + 1)
        .returning(*DISPATCH_COLUMNS),
    ).all()
    dispatch(unit, rows)


def dispatch(unit: UnitOfWork, rows: Iterable[Row[*tuple[Any, ...]] | NewStep]) -> None:
    """Have the attempts in `rows` published after the commit, in the order of the plan.

    One that waits for its predecessor is left to the sweeper.
    """
    unit.effects.dispatches += [
        dispatch_of(row, unit.run.id, unit.run.session_id)
        for row in sorted(rows, key=lambda row: row.position)
        if row.drain_token is None
    ]
