"""The verbs of SPEC section 4 on one session's runs, for code that has a database at hand.

Each verb is one transaction: a savepoint in the caller's where one is open, its own otherwise. The client, the control queue
and the command line all end here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, select

from interlock.core.database.sessions import OpenTransaction, database_of, deliver_for, read_in, write_in
from interlock.core.database.tables import WorkflowRun, WorkflowStep, table_of_model
from interlock.core.errors import InvalidPlan, PayloadTooLarge, RunNotFound, StateMachineError
from interlock.core.json_values import json_size, plain_json
from interlock.core.machine.cause import Cause
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import WORKFLOW_TABLE
from interlock.core.names import check_name, check_text
from interlock.core.orchestration.approvals import APPROVED, REJECTED
from interlock.core.orchestration.dependency_counts import UNSETTLED
from interlock.core.plan import PlanLimits, validate_plan
from interlock.core.queries.status import run_status
from interlock.core.settings import Settings

from .rerun import rerun
from .run_operations import (
    NewRun,
    cancel_run,
    insert_run,
    pause_run,
    resume_run,
    start_run,
    store_plan,
)
from .step_operations import decide_step, pause_step, resume_step, retry_step, settle_step

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection
    from sqlalchemy.orm import Session

    from interlock.core.events import Effects, EventEmitter
    from interlock.core.plan import PlanSpec

__all__ = ["WorkflowController"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)


class WorkflowController:
    """Creates runs and moves them, with everything that follows."""

    def __init__(
        self,
        db_session: Session | OpenTransaction,
        session_id: str = "default",
        event_emitter: EventEmitter | None = None,
        *,
        settings: Settings | None = None,
        known_tasks: Collection[str] | None = None,
        deliver: Callable[[Effects], None] | None = None,
    ) -> None:
        """Set up a controller for one session.

        Args:
            db_session: An SQLAlchemy session (`Database.session()` or one of your own), or a transaction that is open.
            session_id: Whose runs; those of others do not exist for this controller.
            event_emitter: In-process listeners; the database's own where the session comes from `Database.session()`.
            settings: Limits and times; from the environment by default.
            known_tasks: Names of registered tasks, to refuse unknown ones at the door; None where they are not known.
            deliver: Gets the effects after the commit instead of the database's handlers.

        Raises:
            InvalidName: `session_id` has characters outside `[A-Za-z0-9_.-]`.
        """
        self._session = db_session
        self.session_id = check_name("session_id", session_id)
        self._settings = settings or Settings.load()
        self._known_tasks = known_tasks
        database = database_of(db_session)
        self._emitter = event_emitter or (database.emitter if database is not None else None)
        self._deliver = deliver or deliver_for(db_session, self._emitter)

    # --- making runs ---------------------------------------------------------------------------------------------------

    def create_workflow(
        self,
        task_description: str | None = None,
        name: str | None = None,
        plan: object = None,
        meta: dict[str, Any] | None = None,
        transitioned_by: str = "system",
        *,
        input: Any = None,  # noqa: A002 - the name users know
    ) -> WorkflowRun:
        """Store a run in draft, with its first history row.

        Args:
            task_description: What the run is for; the plan's own by default.
            name: Name of the workflow; the plan's own by default.
            plan: A `PlanSpec`, a mapping with `steps`, or a list of steps; may be set later.
            meta: JSON of your own.
            transitioned_by: Who creates it.
            input: JSON that the steps' expressions see as `input`.

        Raises:
            InvalidPlan: The plan has faults, all of which are listed; nothing is stored.
            PayloadTooLarge: `input` is over the limit.
        """
        spec = None if plan is None else self._validated(plan)
        document = self._checked("input", input, self._settings.max_argument_bytes)
        create = self._creation(self._new(spec, name, task_description, document, meta), spec, transitioned_by)

        def work(connection: Connection, effects: Effects, joined: bool) -> WorkflowRun:  # noqa: ARG001, FBT001 - `write_in`'s protocol
            run_id = create(connection, effects)
            run = None if isinstance(self._session, OpenTransaction) else self._session.get(WorkflowRun, run_id)
            if run is None:
                raise RunNotFound(run_id)
            return run

        return write_in(self._session, work, self._deliver)

    def create_unplanned(
        self,
        task_description: str,
        name: str | None = None,
        *,
        input: Any = None,  # noqa: A002 - the name users know
        meta: dict[str, Any] | None = None,
        transitioned_by: str = "user",
        reason: str | None = None,
    ) -> str:
        """Store a run in planning, whose plan somebody is making; returns its id."""
        document = self._checked("input", input, self._settings.max_argument_bytes)
        create = self._creation(self._new(None, name, task_description, document, meta), None, transitioned_by)
        cause = Cause.asked(transitioned_by, reason)

        def work(connection: Connection, effects: Effects, joined: bool) -> str:  # noqa: ARG001, FBT001 - `write_in`'s protocol
            return create(connection, effects, lambda unit: unit.move_run(WorkflowState.PLANNING, cause))

        return write_in(self._session, work, self._deliver)

    def _creation(self, new: NewRun, spec: PlanSpec | None, actor: str) -> Callable[..., str]:
        """What stores a run, does more with it where wanted, and returns its id."""
        cause = Cause.asked(actor, "created")

        def create(connection: Connection, effects: Effects, act: Callable[[UnitOfWork], Any] | None = None) -> str:
            unit = insert_run(connection, effects, new, cause, emitter=self._emitter)
            if unit is None:  # only a used idempotency key is not inserted
                raise AssertionError
            if spec is not None:
                store_plan(unit, spec)
            if act is not None:
                act(unit)
            unit.finish()
            return unit.run.id

        return create

    def set_plan(self, run_id: str, plan: object) -> PlanSpec:
        """Store the plan of a run that is draft or planning, in place of an earlier one.

        Raises:
            InvalidPlan: The plan has faults; nothing is stored.
            CommandRefused: The run is past planning.
            RunNotFound: No such run in this session.
        """
        spec = self._validated(plan)
        self._with(run_id, lambda unit: store_plan(unit, spec))
        return spec

    def begin_planning(self, run_id: str, reason: str | None = None, transitioned_by: str = "user") -> None:
        """Draft → planning: somebody (a person, a Celery task) is making the plan."""
        self._with(run_id, lambda unit: unit.move_run(WorkflowState.PLANNING, Cause.asked(transitioned_by, reason)))

    def start_workflow(self, run_id: str, reason: str | None = None, transitioned_by: str = "user") -> None:
        """Draft or planning → executing; the steps that wait for nothing are dispatched."""
        self._with(run_id, lambda unit: start_run(unit, self._settings, Cause.asked(transitioned_by, reason)))

    def enqueue_workflow(
        self,
        plan: object,
        *,
        task_description: str | None = None,
        name: str | None = None,
        input: Any = None,  # noqa: A002 - the name users know
        meta: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
        start_at: datetime | None = None,
        transitioned_by: str = "user",
    ) -> str:
        """Create a run and start it, in one transaction.

        Args:
            plan: As for `create_workflow`.
            task_description: What the run is for; the plan's own by default.
            name: Name of the workflow; the plan's own by default.
            input: JSON that the steps' expressions see as `input`.
            meta: JSON of your own.
            idempotency_key: A key that this session has used before returns the run that exists, whatever the plan.
            start_at: An aware time; until then the run stays in draft.
            transitioned_by: Who enqueues.

        Returns:
            The run's id.
        """
        spec = self._validated(plan)
        document = self._checked("input", input, self._settings.max_argument_bytes)
        if idempotency_key is not None:
            check_name("idempotency_key", idempotency_key)
        if start_at is not None and start_at.tzinfo is None:
            raise InvalidPlan([f"start_at: {start_at.isoformat()} has no time zone"])
        cause = Cause.asked(transitioned_by, "enqueued")

        new = self._new(spec, name, task_description, document, meta)
        new = replace(new, idempotency_key=idempotency_key, start_at=start_at)

        def work(connection: Connection, effects: Effects, joined: bool) -> str:  # noqa: ARG001, FBT001 - `write_in`'s protocol
            if idempotency_key is not None and (found := self._by_key(connection, idempotency_key)):
                return found
            unit = insert_run(connection, effects, new, Cause.asked(transitioned_by, "created"), emitter=self._emitter)
            if unit is None:  # another producer came first with the same key
                return self._by_key(connection, str(idempotency_key)) or ""
            store_plan(unit, spec)
            if start_at is None:
                start_run(unit, self._settings, cause)
            else:
                unit.check_run(WorkflowState.PLANNING, cause)  # now, not when nobody looks
            unit.finish()
            return unit.run.id

        return write_in(self._session, work, self._deliver)

    # --- moving runs ---------------------------------------------------------------------------------------------------

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
            TransitionNotAllowed: The run is not executing.
            RunNotFound: No such run in this session (a ValueError).
        """
        self._with(run_id, lambda unit: pause_run(unit, self._settings, Cause.asked(transitioned_by, reason), mode))

    def resume_workflow(self, run_id: str, reason: str | None = None, transitioned_by: str = "user") -> None:
        """Resume a paused run: results that came meanwhile count, the other paused steps run again, what waited starts."""
        self._with(run_id, lambda unit: resume_run(unit, self._settings, Cause.asked(transitioned_by, reason)))

    def cancel_workflow(self, run_id: str, reason: str | None = None, transitioned_by: str = "user") -> None:
        """Cancel a run and every unsettled step; a no-op where it is cancelled already.

        Raises:
            TransitionNotAllowed: The run has completed or failed.
            RunNotFound: No such run in this session (a ValueError).
        """
        self._with(run_id, lambda unit: cancel_run(unit, self._settings, Cause.asked(transitioned_by, reason)))

    def rerun_workflow(self, run_id: str, reason: str | None = None, transitioned_by: str = "user") -> str:
        """Start a new run of a failed or cancelled one; what had completed is taken over, not run again.

        Returns:
            The new run's id; its `forked_from` is the old one.

        Raises:
            CommandRefused: The run has not ended failed or cancelled.
            RunNotFound: No such run in this session.
        """
        cause = Cause.asked(transitioned_by, reason)

        def work(connection: Connection, effects: Effects, joined: bool) -> str:  # noqa: ARG001, FBT001 - `write_in`'s protocol
            return rerun(
                connection,
                effects,
                run_id,
                session_id=self.session_id,
                settings=self._settings,
                cause=cause,
                emitter=self._emitter,
            )

        return write_in(self._session, work, self._deliver)

    # --- moving steps ----------------------------------------------------------------------------------------------------

    def pause_step(
        self,
        run_id: str,
        step: str,
        reason: str | None = None,
        transitioned_by: str = "user",
        *,
        mode: str = "interrupt",
    ) -> None:
        """Pause one running step; it stays paused, also over a resume of the workflow, until `resume_step`."""
        cause = Cause.asked(transitioned_by, reason)
        self._with(run_id, lambda unit: pause_step(unit, self._settings, step, cause, mode))

    def resume_step(self, run_id: str, step: str, reason: str | None = None, transitioned_by: str = "user") -> None:
        """Resume a step that was paused by itself."""
        self._with(run_id, lambda unit: resume_step(unit, self._settings, step, Cause.asked(transitioned_by, reason)))

    def approve_step(self, run_id: str, step: str, comment: str | None = None, transitioned_by: str = "user") -> None:
        """Approve what a step asks for.

        Raises:
            AlreadyDecided: Somebody was first; it names the decision and who made it.
            CommandRefused: The step asks for nothing, or this actor may not decide it.
        """
        self._decide(run_id, step, APPROVED, comment, transitioned_by)

    def reject_step(self, run_id: str, step: str, comment: str | None = None, transitioned_by: str = "user") -> None:
        """Reject what a step asks for: the workflow is cancelled, or goes on with the decision where the plan says so."""
        self._decide(run_id, step, REJECTED, comment, transitioned_by)

    def retry_step(self, run_id: str, step: str, reason: str | None = None, transitioned_by: str = "user") -> None:
        """Run a failed step of a live workflow again; in a paused one, when it is resumed.

        Raises:
            TransitionNotAllowed: The step has not failed.
            CommandRefused: The workflow has ended; the message is the `rerun` command to type.
        """
        self._with(run_id, lambda unit: retry_step(unit, self._settings, step, Cause.asked(transitioned_by, reason)))

    def settle_step(
        self,
        run_id: str,
        step: str,
        result: Any,
        reason: str | None = None,
        transitioned_by: str = "user",
    ) -> None:
        """Give a failed step of a live workflow its result by hand; in a paused one, when it is resumed."""
        document = self._checked("result", result, self._settings.max_result_bytes)
        cause = Cause.asked(transitioned_by, reason)
        self._with(run_id, lambda unit: settle_step(unit, self._settings, step, document, cause))

    # --- asking --------------------------------------------------------------------------------------------------------

    def get_workflow_status(self, run_id: str) -> dict[str, Any] | None:
        """The run and its steps as JSON, or None where this session has no such run; see `status.run_status`."""
        return read_in(self._session, lambda connection: run_status(connection, run_id, self.session_id))

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
        if self._state(run_id) not in sources:
            return False

        def work(connection: Connection) -> bool:
            unit, cause = UnitOfWork.peek(connection, run_id), Cause("user", vetoable=True)
            try:
                unit.check_run(target, cause)
                unit.check_steps(step_target, cause, moving)
            except StateMachineError:
                return False
            return True

        return read_in(self._session, work)

    # --- inside --------------------------------------------------------------------------------------------------------

    def _decide(self, run_id: str, step: str, decision: str, comment: str | None, actor: str) -> None:
        cause = Cause.asked(actor, comment)
        self._with(
            run_id,
            lambda unit: decide_step(unit, self._settings, step, decision, cause=cause, comment=comment),
        )

    def _with(self, run_id: str, act: Callable[[UnitOfWork], Any]) -> None:
        def work(connection: Connection, effects: Effects, joined: bool) -> None:  # noqa: FBT001 - `write_in`'s protocol
            unit = UnitOfWork.lock(
                connection,
                effects,
                run_id,
                session_id=self.session_id,
                emitter=self._emitter,
                joined=joined,
            )
            act(unit)
            unit.finish()

        write_in(self._session, work, self._deliver)

    def _validated(self, plan: object) -> PlanSpec:
        limits = PlanLimits(max_steps=self._settings.max_steps, max_args_bytes=self._settings.max_argument_bytes)
        return validate_plan(plan, limits=limits, known_tasks=self._known_tasks)

    def _checked(self, field: str, document: Any, limit: int) -> Any:
        """A copy of a document that is JSON and not over its limit of bytes."""
        copy, problems = plain_json(document)
        if problems:
            raise InvalidPlan(
                [f"{field}{''.join(f'.{part}' for part in path)}: {message}" for path, message in problems]
            )
        size = json_size(copy)
        if size > limit:
            raise PayloadTooLarge(field, size, limit)
        return copy

    def _new(
        self,
        spec: PlanSpec | None,
        name: str | None,
        task_description: str | None,
        document: Any,
        meta: dict[str, Any] | None,
    ) -> NewRun:
        if task_description is None and spec is not None:
            task_description = spec.task_description
        if task_description is not None:
            check_text("task_description", task_description, 100_000)
        if name is not None:
            check_text("name", name, 200)
        if meta is not None:
            meta = self._checked("meta", meta, self._settings.max_argument_bytes)
        return NewRun(
            session_id=self.session_id,
            name=name or (spec.name if spec is not None else None),
            task_description=task_description,
            input=document,
            meta=meta,
        )

    def _by_key(self, connection: Connection, key: str) -> str | None:
        return connection.scalar(
            select(_runs.c.id).where(_runs.c.session_id == self.session_id, _runs.c.idempotency_key == key),
        )

    def _state(self, run_id: str) -> WorkflowState | None:
        query = select(_runs.c.status).where(_runs.c.id == run_id, _runs.c.session_id == self.session_id)
        status = read_in(self._session, lambda connection: connection.scalar(query))
        return None if status is None else WorkflowState(status)
