"""Operations that make a run: create, plan, start, enqueue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from interlock.core.database.sessions import OpenTransaction
from interlock.core.database.tables import WorkflowRun, table_of_model
from interlock.core.errors import InvalidPlan, RunNotFound
from interlock.core.json_values import checked_json
from interlock.core.machine.cause import Cause
from interlock.core.model.states import WorkflowState
from interlock.core.names import check_name, check_text
from interlock.core.plan import PlanLimits, validate_plan

from .new_run import NewRun, insert_run, start_run, store_plan
from .session_runs import SessionRuns

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from interlock.core.events import Effects
    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.plan import PlanSpec

__all__ = ["RunCreation"]

_runs = table_of_model(WorkflowRun)


class RunCreation(SessionRuns):
    """Makes runs, gives them plans, and starts them."""

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
            NotJson: `input` or `meta` is not JSON.
            PayloadTooLarge: `input` or `meta` is over the limit.
        """
        spec = None if plan is None else self._validated(plan)
        new = self._new_run(spec, task_description, name, input=input, meta=meta)

        def create(connection: Connection, effects: Effects) -> WorkflowRun:
            run_id = self._insert(connection, effects, new, spec=spec, actor=transitioned_by)
            # Loaded while the transaction is open: afterwards, looking at it would open another one.
            run = None if isinstance(self._session, OpenTransaction) else self._session.get(WorkflowRun, run_id)
            if run is None:
                raise RunNotFound(run_id)
            return run

        return self._write(create)

    def create_unplanned(
        self,
        task_description: str,
        name: str | None = None,
        *,
        input: Any = None,  # noqa: A002 - the name users know
        meta: dict[str, Any] | None = None,
        reason: str | None = None,
        transitioned_by: str = "user",
    ) -> str:
        """Store a run in planning, whose plan somebody is making; returns its id."""
        new = self._new_run(None, task_description, name, input=input, meta=meta)
        cause = Cause.asked(transitioned_by, reason)

        def plan_it(unit: UnitOfWork) -> None:
            unit.move_run(WorkflowState.PLANNING, cause)

        def create(connection: Connection, effects: Effects) -> str:
            return self._insert(connection, effects, new, spec=None, actor=transitioned_by, act=plan_it)

        return self._write(create)

    def set_plan(self, run_id: str, plan: object) -> PlanSpec:
        """Store the plan of a run that is draft or planning, in place of an earlier one.

        Raises:
            InvalidPlan: The plan has faults; nothing is stored.
            CommandRefused: The run is past planning.
            RunNotFound: No such run in this session.
        """
        spec = self._validated(plan)
        self._change(run_id, lambda unit: store_plan(unit, spec))
        return spec

    def start_workflow(self, run_id: str, reason: str | None = None, transitioned_by: str = "user") -> None:
        """Draft or planning → executing; the steps that wait for nothing are dispatched."""
        cause = Cause.asked(transitioned_by, reason)
        self._change(run_id, lambda unit: start_run(unit, self._settings, cause))

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
        if idempotency_key is not None:
            idempotency_key = check_name("idempotency_key", idempotency_key)
        new = self._new_run(
            spec, task_description, name, input=input, meta=meta, idempotency_key=idempotency_key, start_at=start_at
        )
        if start_at is not None and start_at.tzinfo is None:
            raise InvalidPlan([f"start_at: {start_at.isoformat()} has no time zone"])
        cause = Cause.asked(transitioned_by, "enqueued")

        def start(unit: UnitOfWork) -> None:
            if start_at is None:
                start_run(unit, self._settings, cause)
            else:
                unit.check_run(WorkflowState.PLANNING, cause)  # a refusal belongs to the caller, not to the sweeper

        def enqueue(connection: Connection, effects: Effects) -> str:
            if idempotency_key is not None and (known := self._with_key(connection, idempotency_key)):
                return known
            return self._insert(connection, effects, new, spec=spec, actor=transitioned_by, act=start)

        return self._write(enqueue)

    # --- inside --------------------------------------------------------------------------------------------------------

    def _insert(
        self,
        connection: Connection,
        effects: Effects,
        new: NewRun,
        *,
        spec: PlanSpec | None,
        actor: str,
        act: Callable[[UnitOfWork], object] | None = None,
    ) -> str:
        """Store a run with its plan and let `act` move it.

        Returns:
            Its id, or that of the run that another producer has just stored with the same idempotency key.
        """
        unit = insert_run(connection, effects, new, Cause.asked(actor, "created"), emitter=self._emitter)
        if unit is None:
            return self._with_key(connection, new.idempotency_key) or ""
        if spec is not None:
            store_plan(unit, spec)
        if act is not None:
            act(unit)
        unit.finish()
        return unit.run.id

    def _with_key(self, connection: Connection, key: str | None) -> str | None:
        return connection.scalar(
            select(_runs.c.id).where(_runs.c.session_id == self.session_id, _runs.c.idempotency_key == key)
        )

    def _validated(self, plan: object) -> PlanSpec:
        limits = PlanLimits(max_steps=self._settings.max_steps, max_args_bytes=self._settings.max_argument_bytes)
        return validate_plan(plan, limits=limits, known_tasks=self._known_tasks)

    def _new_run(
        self,
        spec: PlanSpec | None,
        task_description: str | None,
        name: str | None,
        *,
        input: Any,  # noqa: A002 - as above
        meta: dict[str, Any] | None,
        idempotency_key: str | None = None,
        start_at: datetime | None = None,
    ) -> NewRun:
        """What is asked for, checked; name and description are the plan's own by default."""
        limit = self._settings.max_argument_bytes
        document = checked_json("input", input, limit)
        if task_description is None and spec is not None:
            task_description = spec.task_description
        if task_description is not None:
            task_description = check_text("task_description", task_description, 100_000)
        if name is not None:
            name = check_text("name", name, 200)
        return NewRun(
            session_id=self.session_id,
            name=name or (spec.name if spec is not None else None),
            task_description=task_description,
            input=document,
            meta=None if meta is None else checked_json("meta", meta, limit),
            idempotency_key=idempotency_key,
            start_at=start_at,
        )
