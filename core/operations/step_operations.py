"""Operations on one step: pause, resume, approve, reject, retry, settle.

While the run is paused nothing advances: what is asked then is stored on the step (`late`) or its request, and done at resume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from interlock.core.attempts.outcomes import apply_late, retry_now
from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.errors import CommandRefused, EntityNotFound, TransitionNotAllowed
from interlock.core.json_values import checked_json
from interlock.core.machine.attempt_columns import RELEASED
from interlock.core.machine.cause import Cause
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE
from interlock.core.orchestration import approvals, run_end
from interlock.core.orchestration.decisions import decide
from interlock.core.orchestration.dependency_counts import recount
from interlock.core.orchestration.flow import Flow
from interlock.core.orchestration.new_attempts import begin_attempts
from interlock.core.orchestration.parallel_limits import ParallelSlots

from .session_runs import SessionRuns

if TYPE_CHECKING:
    from sqlalchemy import Row

    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["StepOperations", "apply_intent", "reopen_intended"]

_steps = table_of_model(WorkflowStep)


class StepOperations(SessionRuns):
    """Moves single steps, each with everything that follows."""

    def pause_step(
        self,
        run_id: str,
        step: str,
        reason: str | None = None,
        transitioned_by: str = "user",
        *,
        mode: str = "interrupt",
    ) -> None:
        """Pause one running step; it stays paused, also over a resume of the workflow, until `resume_step`.

        Raises:
            EntityNotFound: The run has no such step.
            TransitionNotAllowed: The step is not running.
            CommandRefused: There is no such mode, the workflow neither executes nor is paused, or the step is a mapped one.
        """
        cause = Cause.asked(transitioned_by, reason)

        def pause(unit: UnitOfWork) -> None:
            run_end.check_mode(mode)
            row = _step(unit, step)
            if (row.spec or {}).get("map") is not None:
                message = f"step {step!r} is done by its items ({step}.0, …): pause those, or the workflow"
                raise CommandRefused("pause", message)
            if unit.run.status is WorkflowState.PAUSED and row.status == StepState.PAUSED.value:
                here = update(_steps).where(_steps.c.id == row.id)
                unit.connection.execute(here.values(paused_by=cause.actor, pause_mode=mode))
                return
            _require_live(unit, "pause")
            unit.move_step(row.id, StepState.PAUSED, cause, **RELEASED, paused_by=cause.actor, pause_mode=mode)
            if mode != "drain":
                run_end.interrupt_draining(unit, StepState.PAUSED, mode, _steps.c.id == row.id)
            run_end.finish(unit)

        self._change(run_id, pause)

    def resume_step(self, run_id: str, step: str, reason: str | None = None, transitioned_by: str = "user") -> None:
        """Resume a step that was paused by itself; in a paused workflow it will go on with the workflow.

        Raises:
            EntityNotFound: The run has no such step.
            TransitionNotAllowed: The step is not paused.
            CommandRefused: It was paused with the workflow.
        """
        cause = Cause.asked(transitioned_by, reason)

        def resume(unit: UnitOfWork) -> None:
            row = _step(unit, step)
            _require(row, StepState.PAUSED, StepState.RUNNING)
            if row.paused_by is None:
                raise CommandRefused("resume", f"step {step!r} was paused with the workflow: resume the workflow")
            unit.connection.execute(update(_steps).where(_steps.c.id == row.id).values(paused_by=None, pause_mode=None))
            if unit.run.status is WorkflowState.PAUSED:
                return
            if row.late is not None:
                apply_late(unit, self._settings, row, cause)
            else:
                unit.move_step(row.id, StepState.RUNNING, cause)
                begin_attempts(unit, self._settings, _steps.c.id == row.id)
            run_end.finish(unit)

        self._change(run_id, resume)

    def approve_step(self, run_id: str, step: str, comment: str | None = None, transitioned_by: str = "user") -> None:
        """Approve what a step asks for.

        Raises:
            EntityNotFound: The run has no such step.
            AlreadyDecided: Somebody was first; it names the decision and who made it.
            CommandRefused: The step asks for nothing, or this actor may not decide it.
        """
        self._decide(run_id, step, approvals.APPROVED, comment, transitioned_by)

    def reject_step(self, run_id: str, step: str, comment: str | None = None, transitioned_by: str = "user") -> None:
        """Reject what a step asks for: the workflow is cancelled, or goes on with the decision where the plan says so.

        Raises:
            EntityNotFound: The run has no such step.
            AlreadyDecided: Somebody was first; it names the decision and who made it.
            CommandRefused: The step asks for nothing, or this actor may not decide it.
        """
        self._decide(run_id, step, approvals.REJECTED, comment, transitioned_by)

    def _decide(self, run_id: str, step: str, decision: str, comment: str | None, actor: str) -> None:
        cause = Cause.asked(actor, comment)
        command = "approve" if decision == approvals.APPROVED else "reject"

        def apply(unit: UnitOfWork) -> None:
            request = approvals.open_request(unit, step, command)
            decide(unit, self._settings, request, decision, cause=cause, comment=comment)

        self._change(run_id, apply)

    def retry_step(self, run_id: str, step: str, reason: str | None = None, transitioned_by: str = "user") -> None:
        """Run a failed step of a live workflow again, at once; in a paused one, when it is resumed.

        Neither its trigger nor its condition is asked again.

        Raises:
            EntityNotFound: The run has no such step.
            TransitionNotAllowed: The step has not failed.
            CommandRefused: The workflow has ended; the message is the `rerun` command to type.
        """
        self._repair(run_id, step, "retry", {}, Cause.asked(transitioned_by, reason))

    def settle_step(
        self,
        run_id: str,
        step: str,
        result: Any,
        reason: str | None = None,
        transitioned_by: str = "user",
    ) -> None:
        """Give a failed step of a live workflow the result it should have had; in a paused one, when it is resumed.

        Raises:
            EntityNotFound: The run has no such step.
            TransitionNotAllowed: The step has not failed.
            CommandRefused: The workflow has ended.
        """
        document = checked_json("result", result, self._settings.max_result_bytes)
        self._repair(run_id, step, "settle", {"result": document}, Cause.asked(transitioned_by, reason))

    def _repair(self, run_id: str, step: str, kind: str, more: dict[str, Any], cause: Cause) -> None:
        """Retry or settle a failed step: now, or, in a paused run, by an intent that is carried out at resume."""
        intent = {"kind": kind, "actor": cause.actor, "reason": cause.reason, **more}

        def repair(unit: UnitOfWork) -> None:
            row = _step(unit, step)
            _require_live(unit, kind)
            _require(row, StepState.FAILED, StepState.RUNNING)
            if unit.run.status is WorkflowState.PAUSED:
                unit.connection.execute(update(_steps).where(_steps.c.id == row.id).values(late=intent))
            else:
                _carry_out(unit, self._settings, row, intent, cause)

        self._change(run_id, repair)


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
    _carry_out(unit, settings, row, intent, cause)


def _carry_out(
    unit: UnitOfWork, settings: Settings, row: Row[*tuple[Any, ...]], intent: dict[str, Any], cause: Cause
) -> None:
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
        if ParallelSlots(unit, without=[row.id]).acquire(row):
            retry_now(unit, settings, [row.id], cause)
        else:  # over a limit: due, and begun by the sweeper when a slot is free
            unit.connection.execute(update(_steps).where(here).values(retry_at=clock(), completed_at=None))
        recount(unit.connection, unit.run.id)
        return
    unit.move_steps(StepState.RUNNING, cause, here, started_at=clock(), completed_at=None, retry_at=None)
    recount(unit.connection, unit.run.id)
    Flow(unit, settings).restart(row)
    run_end.finish(unit)


def _settle(unit: UnitOfWork, settings: Settings, row: Row[*tuple[Any, ...]], result: Any, cause: Cause) -> None:
    _reopen(unit, row)
    unit.move_steps(StepState.RUNNING, cause, _steps.c.id == row.id, _steps.c.status == StepState.FAILED.value)
    recount(unit.connection, unit.run.id)
    Flow(unit, settings).complete_step(row.id, result, cause)


def _reopen(unit: UnitOfWork, row: Row[*tuple[Any, ...]]) -> None:
    """Count a step that had settled as open again. Those that wait for it are counted afresh once it has moved."""
    if row.retry_at is None:
        unit.run.open_steps += 1


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


def _require(row: Row[*tuple[Any, ...]], state: StepState, target: StepState) -> None:
    """Refuse a verb unless the step is in `state`."""
    source = STEP_TABLE.parse(row.status)
    if source is not state:
        raise TransitionNotAllowed(
            entity_type=STEP_TABLE.entity_type,
            entity_id=row.id,
            from_state=source,
            to_state=target,
            allowed=STEP_TABLE.targets[source],
        )
