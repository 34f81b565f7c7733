"""The producers' verbs of the client: what makes a run, plans it and starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interlock.core.machine.guard_rules import attach_rules, rules_of
from interlock.core.operations.controller import WorkflowController
from interlock.core.plan import PlanSpec

from .authoring.workflow import Workflow
from .base import BaseClient

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

__all__ = ["ProducerVerbs"]


class ProducerVerbs(BaseClient):
    """Each verb is one command, except for an enqueue inside the caller's own transaction."""

    def enqueue(
        self,
        workflow: Workflow | PlanSpec | dict[str, Any],
        input: Any = None,  # noqa: A002 - the name users know
        idempotency_key: str | None = None,
        db_session: Session | None = None,
        start_at: datetime | None = None,
        *,
        request_id: str | None = None,
    ) -> str:
        """Store a run of the workflow and start it.

        Args:
            workflow: What to run.
            input: JSON that the steps' expressions see as `input`.
            idempotency_key: A key that this session has used before returns the run that exists.
            db_session: Your own SQLAlchemy session on the workflows' database: the run is stored in its transaction, and
                starts when that is committed; rolled back, there never was one.
            start_at: An aware time before which the run does not start.
            request_id: The same id again returns the first outcome.

        Returns:
            The run's id.

        Raises:
            InvalidPlan: The plan has faults, all of which are listed; nothing is stored.
        """
        plan = workflow.plan if isinstance(workflow, Workflow) else workflow
        if db_session is not None:
            return self._enqueue_within(db_session, plan, input, idempotency_key, start_at)
        return str(
            self._call(
                "enqueue",
                request_id=request_id,
                plan=self._plan_to_send(plan),
                input=input,
                idempotency_key=idempotency_key,
                start_at=start_at,
            )
        )

    def create(
        self,
        task_description: str,
        name: str | None = None,
        input: Any = None,  # noqa: A002 - the name users know
        meta: dict[str, Any] | None = None,
        *,
        reason: str | None = None,
        request_id: str | None = None,
    ) -> str:
        """Store a run in `planning`, whose plan is still to be made: by code, a Celery task too, that calls `set_plan`.

        Returns:
            The run's id.
        """
        return str(
            self._call(
                "create",
                reason=reason,
                request_id=request_id,
                task_description=task_description,
                name=name,
                input=input,
                meta=meta,
            )
        )

    def set_plan(
        self,
        id: str,  # noqa: A002 - SPEC's name
        plan: Workflow | PlanSpec | dict[str, Any] | list[dict[str, Any]],
        *,
        request_id: str | None = None,
    ) -> None:
        """Give a run in `draft` or `planning` its plan, in place of an earlier one; `start` starts it.

        Raises:
            InvalidPlan: The plan has faults, all of which are listed; nothing is stored.
            CommandRefused: The run is past planning.
        """
        spec = plan.plan if isinstance(plan, Workflow) else plan
        self._call("set_plan", id, None, request_id, plan=self._plan_to_send(spec))

    def start(self, id: str, reason: str | None = None, *, request_id: str | None = None) -> None:  # noqa: A002 - SPEC's name
        """Start a run that has its plan."""
        self._call("start", id, reason, request_id)

    def _enqueue_within(
        self,
        db_session: Session,
        plan: Any,
        document: Any,
        idempotency_key: str | None,
        start_at: datetime | None,
    ) -> str:
        runtime = self._open_runtime()
        if not db_session.in_transaction():
            db_session.begin()  # a session that has done nothing yet: the caller commits here, too
        rules = rules_of(runtime.database.engine)
        if rules:
            attach_rules(db_session, rules)
        controller = WorkflowController(
            db_session,
            self.session_id,
            settings=self.settings,
            known_tasks=self._known_tasks(),
            deliver=lambda effects: runtime.database.deliver(effects, runtime.database.emitter),
        )
        return controller.enqueue_workflow(
            plan,
            input=document,
            idempotency_key=idempotency_key,
            start_at=start_at,
            transitioned_by=self.actor,
        )

    def _plan_to_send(self, plan: Any) -> Any:
        """The plan as JSON where it travels; with a database at hand it was read once, and is not read again."""
        return plan.document() if isinstance(plan, PlanSpec) and not self._has_database else plan
