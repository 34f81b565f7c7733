"""What producers, operators and subscribers import: every verb, with or without a database at hand.

With a database, a verb is carried out here, in one transaction. Without one it travels over the control queue to a worker's
engine. Both ways it is the same `Command`, handled by the same handler, so a `request_id` means the same.
"""

from __future__ import annotations

import builtins
import getpass
import json
import socket
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from celery import Celery

from interlock.core.errors import ConfigurationError, InterlockError
from interlock.core.machine.guard_rules import attach_rules, rules_of
from interlock.core.names import check_name
from interlock.core.operations.controller import WorkflowController
from interlock.core.plan import PlanSpec
from interlock.core.queries.history import PAGE, HistoryReader, read_changes
from interlock.core.settings import Settings
from interlock.signals.control.command import Command, parse_command
from interlock.signals.control.handler import CommandHandler
from interlock.signals.events.cloud_event import decode
from interlock.signals.events.redis_connection import check_broker_url
from interlock.signals.runtime import Runtime

from .authoring.workflow import Workflow
from .control_link import ControlLink, outcome_result
from .known_tasks import known_tasks
from .operating import OperatorVerbs
from .subscribing import SubscriberVerbs

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from interlock.core.events import StateChange

__all__ = ["Client"]


class Client(OperatorVerbs, SubscriberVerbs):
    """Verbs on the runs of one session."""

    def __init__(
        self,
        app: Celery | None = None,
        *,
        database_url: str | None = None,
        broker_url: str | None = None,
        redis_url: str | None = None,
        session_id: str = "default",
        actor: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        """Set up a client; nothing is connected before the first call.

        Args:
            app: Your Celery app; its configuration gives what the other arguments do not.
            database_url: The workflows' database. Without one (and none configured) everything goes over the control queue.
            broker_url: The broker, where there is no app.
            redis_url: Redis for events; the broker's, where that is a Redis.
            session_id: Whose runs; those of others do not exist for this client.
            actor: Who acts, for the history; `user@host` by default.
            settings: Instead of those of the app and the environment.

        Raises:
            ConfigurationError: There is neither a database nor a broker, or the broker's URL cannot be read.
            InvalidName: `session_id` has characters outside `[A-Za-z0-9_.-]`.
        """
        self.session_id = check_name("session_id", session_id)
        self.actor = actor or _login()
        if broker_url is not None:
            check_broker_url(broker_url)
        own = app is None
        self.app = app if app is not None else _bare_app(broker_url)
        loaded = settings or Settings.load(self.app.conf if app is not None else None)
        given = {"database_url": database_url, "redis_url": redis_url}
        self.settings = loaded.model_copy(update={name: value for name, value in given.items() if value})
        if own and self.settings.database_url is None and broker_url is None:
            msg = "give a Celery app, a database_url or a broker_url"
            raise ConfigurationError(msg)
        if own:
            # This app does not know where tasks are routed. What it enqueues is due at once, for a sweeper that does.
            self.settings = self.settings.model_copy(update={"redispatch_s": 0.001})
        self._dispatches = not own
        self._has_broker = not own or broker_url is not None
        self._runtime: Runtime | None = None
        self._handler: CommandHandler | ControlLink | None = None

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens them again."""
        if self._runtime is not None:
            self._runtime.close()
        self._runtime = self._handler = None

    # --- producers -----------------------------------------------------------------------------------------------------

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
        run_id = self._call(
            "enqueue",
            request_id=request_id,
            plan=self._plan_to_send(plan),
            input=input,
            idempotency_key=idempotency_key,
            start_at=None if start_at is None else start_at.isoformat(),
        )
        self._hint(str(run_id))
        return str(run_id)

    def create(
        self,
        task_description: str,
        name: str | None = None,
        input: Any = None,  # noqa: A002 - the name users know
        meta: dict[str, Any] | None = None,
        *,
        request_id: str | None = None,
    ) -> str:
        """Store a run in `planning`, whose plan is still to be made: by code, a Celery task too, that calls `set_plan`.

        Returns:
            The run's id.
        """
        return str(
            self._call(
                "create",
                request_id=request_id,
                task_description=task_description,
                name=name,
                input=input,
                meta=meta,
            ),
        )

    def set_plan(
        self,
        id: str,  # noqa: A002 - SPEC's name
        plan: Workflow | PlanSpec | dict[str, Any] | builtins.list[dict[str, Any]],
        *,
        request_id: str | None = None,
    ) -> None:
        """Give a run in `draft` or `planning` its plan, in place of an earlier one; `start` starts it.

        Raises:
            InvalidPlan: The plan has faults, all of which are listed; nothing is stored.
            CommandRefused: The run is past planning.
        """
        self._call(
            "set_plan", id, None, request_id, plan=self._plan_to_send(plan.plan if isinstance(plan, Workflow) else plan)
        )

    def start(self, id: str, reason: str | None = None, *, request_id: str | None = None) -> None:  # noqa: A002 - SPEC's name
        """Start a run that has its plan."""
        self._call("start", id, reason, request_id)
        self._hint(id)

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

    # --- asking --------------------------------------------------------------------------------------------------------

    def status(self, id: str) -> dict[str, Any]:  # noqa: A002 - SPEC's name
        """The run and its steps; see `interlock.core.queries.status.run_status`.

        Raises:
            RunNotFound: No such run in this session.
        """
        return dict(self._call("status", id))

    def result(self, id: str, step: str | None = None) -> Any:  # noqa: A002 - SPEC's name
        """The result of a step, or those of all final steps by key.

        Raises:
            RunNotFound: No such run in this session.
            CommandRefused: The step has no result (yet), or does not exist.
        """
        return self._call("result", id, **({} if step is None else {"step": step}))

    def list(
        self,
        status: str | None = None,
        name: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 50,
    ) -> builtins.list[dict[str, Any]]:
        """The session's runs, newest first."""
        return builtins.list(
            self._call(
                "list",
                status=status,
                name=name,
                created_after=None if created_after is None else created_after.isoformat(),
                created_before=None if created_before is None else created_before.isoformat(),
                limit=limit,
            ),
        )

    def explain(self, id: str) -> dict[str, Any]:  # noqa: A002 - SPEC's name
        """Why the run does not move, or what it is doing, in words; see `interlock.core.queries.explain.explain`.

        With the Celery app at hand, or over the control queue, the broker is asked about the queues in which steps wait.

        Raises:
            RunNotFound: No such run in this session.
        """
        return dict(self._call("explain", id))

    def history(self, id: str, after_seq: int = 0) -> builtins.list[StateChange]:  # noqa: A002 - SPEC's name
        """Every change of the run behind `after_seq`, in order.

        Raises:
            RunNotFound: No such run in this session.
        """
        changes: builtins.list[StateChange] = []
        while page := self._fetch(id, changes[-1].seq if changes else after_seq):
            changes += page
            if len(page) < PAGE:
                break
        if not changes:
            self.status(id)
        return changes

    # --- inside --------------------------------------------------------------------------------------------------------

    def _call(
        self,
        verb: str,
        run_id: str | None = None,
        reason: str | None = None,
        request_id: str | None = None,
        **args: Any,
    ) -> Any:
        command = parse_command(
            {
                "id": request_id or uuid4().hex,
                "command": verb,
                "session_id": self.session_id,
                "workflow_id": run_id,
                "actor": self.actor,
                "reason": reason,
                "args": {name: value for name, value in args.items() if value is not None},
            },
        )
        handler = self._open_handler()
        if isinstance(handler, CommandHandler):
            return outcome_result(handler.handle(command, fresh=request_id is None))
        return outcome_result(handler.handle(command))

    def _fetch(self, run_id: str, after_seq: int) -> builtins.list[StateChange]:
        if self.settings.database_url is None:
            return [decode(json.dumps(item)) for item in self._call("replay", run_id, after_seq=after_seq, limit=PAGE)]
        with self._open_runtime().database.reading() as connection:
            return read_changes(connection, run_id, session_id=self.session_id, after_seq=after_seq, limit=PAGE)

    def _reader(self, run_id: str) -> Callable[[int], builtins.list[StateChange]]:
        """Read the run's history page by page; the first read says whether there is such a run."""
        known = False

        def read(after_seq: int) -> builtins.list[StateChange]:
            nonlocal known
            page = self._fetch(run_id, after_seq)
            if not known and not page:
                self.status(run_id)  # raises for what is not there; a run of an older version has no history yet
            known = True
            return page

        return read

    def _session_reader(self) -> HistoryReader:
        if self.settings.database_url is None:
            msg = "to follow a whole session the client needs the database: give it a database_url"
            raise ConfigurationError(msg)
        return HistoryReader(self._open_runtime().database, self.session_id)

    def _plan_to_send(self, plan: Any) -> Any:
        """The plan as JSON where it travels; with a database at hand it was read once, and is not read again."""
        travels = self.settings.database_url is None
        return plan.document() if travels and isinstance(plan, PlanSpec) else plan

    def _hint(self, run_id: str) -> None:
        """Without routes of its own, tell an engine that something of the run is due; its sweeper would find it a little later."""
        if self._dispatches or not self._has_broker or self.settings.database_url is None:
            return
        command = Command(
            id=uuid4().hex, command="dispatch", session_id=self.session_id, workflow_id=run_id, actor=self.actor
        )
        try:
            ControlLink(self.app, self.settings).send(command)
        except InterlockError:
            return  # only a hint

    def _open_handler(self) -> CommandHandler | ControlLink:
        if self._handler is None:
            if self.settings.database_url is None:
                self._handler = ControlLink(self.app, self.settings)
            else:
                runtime = self._open_runtime()
                app = self.app if self._dispatches else None
                self._handler = CommandHandler(runtime.database, self.settings, self._known_tasks(), app)
        return self._handler

    def _open_runtime(self) -> Runtime:
        if self._runtime is None:
            self._runtime = Runtime(self.app, self.settings, dispatches=self._dispatches, broadcasts=self._has_broker)
        return self._runtime

    def _known_tasks(self) -> frozenset[str] | None:
        """The names by which a plan's tasks are checked here; None where that is left to the workers."""
        return known_tasks(self.app) if self._dispatches and self.settings.check_tasks else None


def _bare_app(broker_url: str | None) -> Celery:
    app = Celery("interlock.client", broker=broker_url or "memory://", set_as_current=False)
    app.conf.update(task_serializer="json", accept_content=["json"], task_ignore_result=True)
    return app


def _login() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
