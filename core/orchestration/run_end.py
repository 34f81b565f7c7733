"""Stops a run: pauses it, ends it, lets it complete or wait for people. Called with the run's lock held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, exists, or_, select, update

from interlock.core.database.tables import ApprovalRequest, WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.errors import CommandRefused
from interlock.core.events import Interrupt
from interlock.core.machine.attempt_columns import RELEASED, message_of_drain
from interlock.core.machine.cause import ENGINE, Cause
from interlock.core.model.states import StepState, WorkflowState

from .approvals import CLOSED
from .dependency_counts import IS_OPEN, UNSETTLED, count_open

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from interlock.core.events import StateChange
    from interlock.core.machine.unit_of_work import UnitOfWork

__all__ = [
    "EVERY_STEP_IS_SETTLED",
    "PAUSE_MODES",
    "check_mode",
    "close_steps",
    "end",
    "finish",
    "interrupt_draining",
    "pause",
    "stop_after_failure",
]

EVERY_STEP_IS_SETTLED = "every step is settled"
PAUSE_MODES = ("interrupt", "drain", "terminate")

_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)


def check_mode(mode: str) -> None:
    """Raise CommandRefused unless `mode` is one of `PAUSE_MODES`."""
    if mode not in PAUSE_MODES:
        raise CommandRefused("pause", f"mode: {mode!r} is not one of {', '.join(PAUSE_MODES)}", code="invalid")


def end(unit: UnitOfWork, target: WorkflowState, cause: Cause, **values: Any) -> None:
    """End the run as failed or cancelled, and everything unsettled with it; the run's history row is the last one."""
    close_steps(unit, cause)
    unit.connection.execute(
        update(_requests)
        .where(_requests.c.run_id == unit.run.id, _requests.c.decision.is_(None))
        .values(decision=CLOSED, decided_by=cause.actor, decided_at=clock()),
    )
    unit.run.open_steps = unit.run.waiting_steps = 0
    unit.move_run(target, cause, **values)


def close_steps(unit: UnitOfWork, cause: Cause) -> list[StateChange]:
    """Cancel every unsettled step, and have the bodies that are held interrupted."""
    changes = unit.move_steps(
        StepState.CANCELLED,
        cause,
        _steps.c.status.in_([state.value for state in UNSETTLED]),
        **RELEASED,
        completed_at=clock(),
    )
    # A failed step whose retry will never come keeps its state, but must not fall due.
    unit.connection.execute(
        update(_steps)
        .where(
            _steps.c.run_id == unit.run.id,
            _steps.c.status == StepState.FAILED.value,
            _steps.c.retry_at.is_not(None),
        )
        .values(retry_at=None, completed_at=clock()),
    )
    interrupt_draining(unit, StepState.CANCELLED, "soft")
    return changes


def interrupt_draining(unit: UnitOfWork, state: StepState, mode: str, *conditions: ColumnElement[bool]) -> None:
    """Have the bodies of steps in `state` that are still held interrupted after the commit."""
    held = unit.connection.execute(
        select(_steps.c.id, _steps.c.drain_task_id, _steps.c.carrier_id).where(
            _steps.c.run_id == unit.run.id,
            _steps.c.status == state.value,
            _steps.c.drain_token.is_not(None),
            _steps.c.drain_until > clock(),
            *conditions,
        ),
    )
    unit.effects.interrupts += [
        Interrupt(row.drain_task_id, message_of_drain(row), "terminate" if mode == "terminate" else "soft")
        for row in held
    ]


def pause(unit: UnitOfWork, cause: Cause, *, mode: str, paused_by: str) -> None:
    """Pause the run: running steps with it, pending ones untouched but no longer due."""
    unit.move_run(WorkflowState.PAUSED, cause, pause_mode=mode, paused_by=paused_by, paused_at=clock())
    unit.move_steps(StepState.PAUSED, cause, _steps.c.status == StepState.RUNNING.value, **RELEASED)
    unit.connection.execute(
        update(_steps)
        .where(
            _steps.c.run_id == unit.run.id,
            _steps.c.status == StepState.PENDING.value,
            _steps.c.dispatch_check_at.is_not(None),
        )
        .values(dispatch_check_at=None),
    )
    if mode != "drain":
        interrupt_draining(unit, StepState.PAUSED, mode)


def stop_after_failure(unit: UnitOfWork, key: str, message: str, *, pauses: bool) -> None:
    """Pause or fail the run because a step has failed for good; the step is not counted as open any more."""
    unit.run.open_steps -= 1
    cause = Cause(ENGINE, f"step {key} failed: {message}")
    if pauses:
        pause(unit, cause, mode="drain", paused_by=ENGINE)
    else:
        end(unit, WorkflowState.FAILED, cause, error=f"{key}: {message}")


def finish(unit: UnitOfWork) -> None:
    """End an executing run in which every step is settled, or let it wait where only people can move it on."""
    if not unit.run.is_executing or unit.resuming:
        return
    if unit.run.open_steps > 0:
        _wait_for_people(unit)
        return
    hindrance = unit.connection.execute(
        select(_steps.c.key, _steps.c.error, IS_OPEN.label("open"))
        .where(
            _steps.c.run_id == unit.run.id,
            or_(
                IS_OPEN,
                and_(
                    _steps.c.status == StepState.FAILED.value,
                    or_(
                        _steps.c.spec["on_failure"].as_string().is_(None),
                        _steps.c.spec["on_failure"].as_string() != "continue",
                    ),
                ),
            ),
        )
        .order_by(IS_OPEN.desc(), _steps.c.position)
        .limit(1),
    ).one_or_none()
    if hindrance is None:
        unit.move_run(WorkflowState.COMPLETED, Cause(ENGINE, EVERY_STEP_IS_SETTLED))
    elif hindrance.open:
        # The counter was wrong: another version or another program has written rows. The sweeper finds what may move.
        unit.run.open_steps = count_open(unit.connection, unit.run.id)
        _wait_for_people(unit)
    else:
        reason = f"step {hindrance.key} failed: {hindrance.error}"
        unit.move_run(WorkflowState.FAILED, Cause(ENGINE, reason), error=f"{hindrance.key}: {hindrance.error}")


def _wait_for_people(unit: UnitOfWork) -> None:
    """Executing → waiting_approval, where a step waits and nothing runs, is due, or is paused by a person."""
    if unit.run.waiting_steps == 0:
        return
    moving = exists().where(
        _steps.c.run_id == unit.run.id,
        or_(
            and_(_steps.c.status == StepState.RUNNING.value, _steps.c.task_id.is_not(None)),
            _steps.c.status == StepState.PAUSED.value,
            _steps.c.due_at.is_not(None),
        ),
    )
    if not unit.connection.scalar(select(moving)):
        unit.move_run(WorkflowState.WAITING_APPROVAL, Cause(ENGINE, "nothing can go on without an approval"))
