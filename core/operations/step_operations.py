"""What can be asked of one step: pause, resume, approve, reject, retry, settle. Each inside one unit of work.

While the run is paused nothing advances: what is asked then is stored on the step (`late`) or its request, and done at resume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from interlock.core.attempts.outcomes import apply_late, retry_now
from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.errors import CommandRefused, EntityNotFound, TransitionNotAllowed
from interlock.core.machine.attempt_columns import RELEASED
from interlock.core.machine.cause import Cause
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE
from interlock.core.orchestration import approvals
from interlock.core.orchestration.dependency_counts import recount
from interlock.core.orchestration.flow import Flow, check_mode
from interlock.core.orchestration.new_attempts import begin_attempts
from interlock.core.orchestration.parallel_limits import Places

if TYPE_CHECKING:
    from sqlalchemy import Row

    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["apply_intent", "decide_step", "pause_step", "reopen_intended", "resume_step", "retry_step", "settle_step"]

_steps = table_of_model(WorkflowStep)


def pause_step(unit: UnitOfWork, settings: Settings, key: str, cause: Cause, mode: str = "interrupt") -> None:
    """Pause a running step by itself: it stays paused, also over a resume of the workflow, until it is resumed.

    Raises:
        EntityNotFound: The run has no such step.
        TransitionNotAllowed: The step is not running.
        CommandRefused: `mode` is not one of `PAUSE_MODES`, the workflow neither executes nor is paused, or the step is a
            mapped one.
    """
    check_mode(mode)
    row = _step(unit, key)
    flow = Flow(unit, settings)
    if (row.spec or {}).get("map") is not None:
        raise CommandRefused("pause", f"step {key!r} is done by its items ({key}.0, …): pause those, or the workflow")
    if unit.run.status is WorkflowState.PAUSED and row.status == StepState.PAUSED.value:
        here = update(_steps).where(_steps.c.id == row.id)
        unit.connection.execute(here.values(paused_by=cause.actor, pause_mode=mode))
        return
    _require_live(unit, "pause")
    unit.move_step(row.id, StepState.PAUSED, cause, **RELEASED, paused_by=cause.actor, pause_mode=mode)
    if mode != "drain":
        flow.interrupt_draining(StepState.PAUSED, mode, _steps.c.id == row.id)
    flow.finish_run()


def resume_step(unit: UnitOfWork, settings: Settings, key: str, cause: Cause) -> None:
    """Resume a step that a person paused; in a paused workflow it will go on with the workflow.

    Raises:
        EntityNotFound: The run has no such step.
        TransitionNotAllowed: The step is not paused.
        CommandRefused: It was paused with the workflow.
    """
    row = _step(unit, key)
    if row.status != StepState.PAUSED.value:
        raise _not_allowed(row, StepState.RUNNING)
    if row.paused_by is None:
        raise CommandRefused("resume", f"step {key!r} was paused with the workflow: resume the workflow")
    unit.connection.execute(update(_steps).where(_steps.c.id == row.id).values(paused_by=None, pause_mode=None))
    if unit.run.status is WorkflowState.PAUSED:
        return
    flow = Flow(unit, settings)
    if row.late is not None:
        apply_late(unit, settings, row, cause)
    else:
        unit.move_step(row.id, StepState.RUNNING, cause)
        begin_attempts(unit, settings, _steps.c.id == row.id)
    flow.finish_run()


def decide_step(
    unit: UnitOfWork,
    settings: Settings,
    key: str,
    decision: str,
    *,
    cause: Cause,
    comment: str | None = None,
) -> None:
    """Approve or reject the open request of a step.

    Args:
        unit: The run.
        settings: Times and limits.
        key: The step.
        decision: `approvals.APPROVED` or `approvals.REJECTED`.
        cause: Who decides.
        comment: Why, for whoever reads the history.

    Raises:
        AlreadyDecided: Somebody was first.
        CommandRefused: There is no open request, or the actor may not decide it.
    """
    flow = Flow(unit, settings)
    command = "approve" if decision == approvals.APPROVED else "reject"
    request = approvals.open_request(flow, key, command)
    approvals.decide(flow, request, decision, cause, comment)


def retry_step(unit: UnitOfWork, settings: Settings, key: str, cause: Cause) -> None:
    """Run a failed step of a live workflow again, at once; in a paused one, when it is resumed.

    What was not met before is not asked again: neither its trigger nor its condition.

    Raises:
        EntityNotFound: The run has no such step.
        TransitionNotAllowed: The step has not failed.
        CommandRefused: The workflow has ended: `rerun` is what is left.
    """
    row = _step(unit, key)
    _require_live(unit, "retry")
    if row.status != StepState.FAILED.value:
        raise _not_allowed(row, StepState.RUNNING)
    if unit.run.status is WorkflowState.PAUSED:
        _store_intent(unit, row, {"kind": "retry", "actor": cause.actor, "reason": cause.reason})
        return
    _retry(unit, settings, row, cause)


def settle_step(unit: UnitOfWork, settings: Settings, key: str, result: Any, cause: Cause) -> None:
    """Give a failed step of a live workflow the result it should have had; in a paused one, when it is resumed.

    Raises:
        EntityNotFound: The run has no such step.
        TransitionNotAllowed: The step has not failed.
        CommandRefused: The workflow has ended.
    """
    row = _step(unit, key)
    _require_live(unit, "settle")
    if row.status != StepState.FAILED.value:
        raise _not_allowed(row, StepState.RUNNING)
    if unit.run.status is WorkflowState.PAUSED:
        _store_intent(unit, row, {"kind": "settle", "actor": cause.actor, "reason": cause.reason, "result": result})
        return
    _settle(unit, settings, row, result, cause)


def reopen_intended(unit: UnitOfWork) -> None:
    """At resume: count every failed step for which something was asked as open again, before any of it is done.

    What is done first would otherwise have those that wait for several of them decided by failures that are about to be
    corrected as well: skipped for good, or started too early.
    """
    failed = (_steps.c.run_id == unit.run.id, _steps.c.status == StepState.FAILED.value, _steps.c.late.is_not(None))
    reopened = unit.connection.execute(
        update(_steps).where(*failed, _steps.c.retry_at.is_(None)).values(retry_at=clock(), completed_at=None)
    ).rowcount
    if reopened:
        unit.run.open_steps += reopened
        recount(unit.connection, unit.run.id)


def apply_intent(unit: UnitOfWork, settings: Settings, row: Row[*tuple[Any, ...]]) -> None:
    """At resume: do what was asked of a failed step while the run was paused."""
    intent = row.late
    cause = Cause(intent["actor"], intent["reason"])
    unit.connection.execute(update(_steps).where(_steps.c.id == row.id).values(late=None))
    if intent["kind"] == "settle":
        _settle(unit, settings, row, intent["result"], cause)
    else:
        _retry(unit, settings, row, cause)


def _retry(unit: UnitOfWork, settings: Settings, row: Row[*tuple[Any, ...]], cause: Cause) -> None:
    _reopen(unit, row)
    here = _steps.c.id == row.id
    spec = row.spec or {}
    is_to_be_asked = spec.get("approval") is not None and row.task_id is None
    if spec.get("map") is None and not is_to_be_asked:
        if Places(unit, without=[row.id]).take(row):
            retry_now(unit, settings, [row.id], cause)
        else:  # over a limit: due, and begun by the sweeper when a place is free
            unit.connection.execute(update(_steps).where(here).values(retry_at=clock(), completed_at=None))
        recount(unit.connection, unit.run.id)
        return
    unit.move_steps(StepState.RUNNING, cause, here, started_at=clock(), completed_at=None, retry_at=None)
    recount(unit.connection, unit.run.id)
    flow = Flow(unit, settings)
    flow.begin_again(row)
    flow.finish_run()


def _settle(unit: UnitOfWork, settings: Settings, row: Row[*tuple[Any, ...]], result: Any, cause: Cause) -> None:
    _reopen(unit, row)
    unit.move_steps(StepState.RUNNING, cause, _steps.c.id == row.id, _steps.c.status == StepState.FAILED.value)
    recount(unit.connection, unit.run.id)
    Flow(unit, settings).complete_step(row.id, result, cause)


def _reopen(unit: UnitOfWork, row: Row[*tuple[Any, ...]]) -> None:
    """Count a step that had settled as open again. Those that wait for it are counted afresh once it has moved."""
    if row.retry_at is None:
        unit.run.open_steps += 1


def _store_intent(unit: UnitOfWork, row: Row[*tuple[Any, ...]], intent: dict[str, Any]) -> None:
    unit.connection.execute(update(_steps).where(_steps.c.id == row.id).values(late=intent))


def _step(unit: UnitOfWork, key: str) -> Row[*tuple[Any, ...]]:
    row = unit.connection.execute(
        select(_steps).where(_steps.c.run_id == unit.run.id, _steps.c.key == key),
    ).one_or_none()
    if row is None:
        raise EntityNotFound(entity_type=STEP_TABLE.entity_type, entity_id=key)
    return row


def _require_live(unit: UnitOfWork, command: str) -> None:
    status = unit.run.status
    if WORKFLOW_TABLE.is_terminal(status):
        hint = f"run it again with `interlock rerun {unit.run.id}`, which reuses what has completed"
        raise CommandRefused(command, f"the workflow is {status}: {hint}", code="terminal")
    if status not in (WorkflowState.EXECUTING, WorkflowState.PAUSED):
        raise CommandRefused(command, f"the workflow is {status}; {command} a step while it executes or is paused")


def _not_allowed(row: Row[*tuple[Any, ...]], target: StepState) -> TransitionNotAllowed:
    source = STEP_TABLE.parse(row.status)
    return TransitionNotAllowed(
        entity_type=STEP_TABLE.entity_type,
        entity_id=row.id,
        from_state=source,
        to_state=target,
        allowed=STEP_TABLE.targets[source],
    )
