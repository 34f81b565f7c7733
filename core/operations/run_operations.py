"""Operations on a run that exists: pause, resume, cancel, run again; and whether they would succeed now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, or_, select, update

from interlock.core.attempts.outcomes import apply_late
from interlock.core.database.sessions import read_in_session
from interlock.core.database.tables import ApprovalRequest, WorkflowRun, WorkflowStep, table_of_model
from interlock.core.database.types import clock, seconds_after, seconds_between
from interlock.core.errors import StateMachineError, TransitionNotAllowed
from interlock.core.machine.cause import Cause
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import WORKFLOW_TABLE
from interlock.core.orchestration import run_end
from interlock.core.orchestration.dependency_counts import UNSETTLED
from interlock.core.orchestration.flow import Flow
from interlock.core.orchestration.new_attempts import begin_attempts, redispatch_pending

from .new_run import UNPLANNED
from .rerun import rerun
from .session_runs import SessionRuns
from .step_operations import apply_intent, reopen_intended

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, Connection

    from interlock.core.settings import Settings

__all__ = ["RunOperations"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)


class RunOperations(SessionRuns):
    """Moves whole runs, each with everything that follows."""

    def pause_workflow(
        self,
        run_id: str,
        reason: str | None = None,
        transitioned_by: str = "user",
        *,
        mode: str = "interrupt",
    ) -> None:
        """Pause an executing run and its running steps; pending ones stay pending and do not start.

        Args:
            run_id: The run.
            reason: Why.
            transitioned_by: Who.
            mode: `interrupt` raises in the running bodies, `drain` lets them finish, `terminate` kills their processes.

        Raises:
            CommandRefused: There is no such mode.
            TransitionNotAllowed: The run is not executing.
            RunNotFound: No such run in this session (a ValueError).
        """
        cause = Cause.asked(transitioned_by, reason)

        def pause(unit: UnitOfWork) -> None:
            run_end.check_mode(mode)
            _require(unit, WorkflowState.EXECUTING, WorkflowState.PAUSED)
            run_end.pause(unit, cause, mode=mode, paused_by=cause.actor)

        self._change(run_id, pause)

    def resume_workflow(self, run_id: str, reason: str | None = None, transitioned_by: str = "user") -> None:
        """Resume a paused run: results that came meanwhile count, the other paused steps run again, what waited starts.

        Raises:
            TransitionNotAllowed: The run is not paused.
            RunNotFound: No such run in this session (a ValueError).
        """
        cause = Cause.asked(transitioned_by, reason)

        def resume(unit: UnitOfWork) -> None:
            _require(unit, WorkflowState.PAUSED, WorkflowState.EXECUTING)
            _resume(unit, self._settings, cause)

        self._change(run_id, resume)

    def cancel_workflow(self, run_id: str, reason: str | None = None, transitioned_by: str = "user") -> None:
        """Cancel a run and every unsettled step; a no-op where it is cancelled already.

        Raises:
            TransitionNotAllowed: The run has completed or failed.
            RunNotFound: No such run in this session (a ValueError).
        """
        cause = Cause.asked(transitioned_by, reason)

        def cancel(unit: UnitOfWork) -> None:
            if unit.run.status is WorkflowState.CANCELLED:
                return
            if WORKFLOW_TABLE.is_terminal(unit.run.status):
                unit.check_run(WorkflowState.CANCELLED, cause)
            if unit.run.status in UNPLANNED:
                unit.begin_step_history(cause)
            run_end.end(unit, WorkflowState.CANCELLED, cause)

        self._change(run_id, cancel)

    def rerun_workflow(self, run_id: str, reason: str | None = None, transitioned_by: str = "user") -> str:
        """Start a new run of a failed or cancelled one; what had completed is taken over, not run again.

        Returns:
            The new run's id; its `forked_from` is the old one.

        Raises:
            CommandRefused: The run has not ended failed or cancelled.
            RunNotFound: No such run in this session.
        """
        cause = Cause.asked(transitioned_by, reason)
        return self._change(run_id, lambda old: rerun(old, self._settings, cause, emitter=self._emitter))

    # --- whether it would succeed ----------------------------------------------------------------------------------------

    def can_pause(self, run_id: str) -> bool:
        """Whether `pause_workflow` would succeed now."""
        running = _steps.c.status == StepState.RUNNING.value
        return self._can(run_id, (WorkflowState.EXECUTING,), WorkflowState.PAUSED, StepState.PAUSED, running)

    def can_resume(self, run_id: str) -> bool:
        """Whether `resume_workflow` would succeed now."""
        by_workflow = and_(_steps.c.status == StepState.PAUSED.value, _steps.c.paused_by.is_(None))
        return self._can(run_id, (WorkflowState.PAUSED,), WorkflowState.EXECUTING, StepState.RUNNING, by_workflow)

    def can_cancel(self, run_id: str) -> bool:
        """Whether `cancel_workflow` would move the run now."""
        unsettled = _steps.c.status.in_([state.value for state in UNSETTLED])
        sources = WORKFLOW_TABLE.sources(WorkflowState.CANCELLED)
        return self._can(run_id, sources, WorkflowState.CANCELLED, StepState.CANCELLED, unsettled)

    def _can(
        self,
        run_id: str,
        sources: Collection[WorkflowState],
        target: WorkflowState,
        step_target: StepState,
        moving: ColumnElement[bool],
    ) -> bool:
        """Whether the run is in one of `sources`, and its guards let it and the steps `moving` along."""

        def look(connection: Connection) -> bool:
            query = select(_runs.c.status).where(_runs.c.id == run_id, _runs.c.session_id == self.session_id)
            if connection.scalar(query) not in sources:
                return False
            unit, cause = UnitOfWork.peek(connection, run_id), Cause("user", vetoable=True)
            try:
                unit.check_run(target, cause)
                unit.check_steps(step_target, cause, moving)
            except StateMachineError:
                return False
            return True

        return read_in_session(self._session, look)


def _resume(unit: UnitOfWork, settings: Settings, cause: Cause) -> None:
    """Paused → executing, with everything that waited: results and failures that came meanwhile, steps, dispatches."""
    paused_s = unit.connection.scalar(
        select(seconds_between(_runs.c.paused_at, clock())).where(_runs.c.id == unit.run.id),
    )
    unit.move_run(
        WorkflowState.EXECUTING,
        cause,
        pause_mode=None,
        paused_by=None,
        paused_at=None,
        deadline_at=seconds_after(float(paused_s or 0), _runs.c.deadline_at),
    )
    flow = Flow(unit, settings)
    unit.resuming = True
    reopen_intended(unit)
    by_workflow = (_steps.c.status == StepState.PAUSED.value, _steps.c.paused_by.is_(None))
    late = unit.connection.execute(
        select(_steps)
        .where(
            _steps.c.run_id == unit.run.id,
            _steps.c.late.is_not(None),
            or_(and_(*by_workflow), _steps.c.status == StepState.FAILED.value),
        )
        .order_by(_steps.c.position),
    ).all()
    unit.connection.execute(
        update(_requests)
        .where(_requests.c.run_id == unit.run.id, _requests.c.decision.is_(None))
        .values(deadline_at=seconds_after(float(paused_s or 0), _requests.c.deadline_at)),
    )
    resumed = unit.move_steps(StepState.RUNNING, cause, *by_workflow, _steps.c.late.is_(None))
    if resumed:
        # One set, however many: those that resumed are the running ones without a claim. A mapped step has no attempt.
        begin_attempts(
            unit,
            settings,
            _steps.c.status == StepState.RUNNING.value,
            _steps.c.claim_token.is_(None),
            _steps.c.task_id.is_not(None),
        )
    redispatch_pending(unit, settings)
    for row in late:
        if not unit.run.is_executing:
            break  # a failure that came while paused has ended the run, and cancelled the rest
        if row.status == StepState.FAILED.value:
            apply_intent(unit, settings, row)
        else:
            apply_late(unit, settings, row, cause)
    if unit.run.is_executing:
        flow.apply_stored_decisions()
    unit.resuming = False
    if unit.run.is_executing:
        flow.reconcile()  # a failure that paused the run has not been counted by those that wait for the step


def _require(unit: UnitOfWork, state: WorkflowState, target: WorkflowState) -> None:
    """Refuse a verb unless the run is in `state`."""
    if unit.run.status is not state:
        raise TransitionNotAllowed(
            entity_type=WORKFLOW_TABLE.entity_type,
            entity_id=unit.run.id,
            from_state=unit.run.status,
            to_state=target,
            allowed=WORKFLOW_TABLE.targets[unit.run.status],
            detail=_what_instead(unit, target),
        )


def _what_instead(unit: UnitOfWork, target: WorkflowState) -> str:
    """What to do instead of a verb that does not apply, where the steps tell."""
    if unit.run.status is WorkflowState.WAITING_APPROVAL:
        waiting = _keys_in(unit, StepState.WAITING_APPROVAL)
        return f"it waits for the approval of {', '.join(waiting)}: approve, reject or cancel"
    if unit.run.status is WorkflowState.EXECUTING is target and (paused := _keys_in(unit, StepState.PAUSED)):
        return f"only single steps are paused, resume them by name: {', '.join(paused)}"
    return ""


def _keys_in(unit: UnitOfWork, state: StepState) -> Sequence[str]:
    keys = select(_steps.c.key).where(_steps.c.run_id == unit.run.id, _steps.c.status == state.value)
    return unit.connection.scalars(keys.order_by(_steps.c.position)).all()
