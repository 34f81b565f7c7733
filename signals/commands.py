"""Control commands carried out, each once.

A command and its outcome are one transaction: the outcome is stored under the command's id, so that the same id again,
redelivered or repeated by a client that got no answer, is answered with the first outcome.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from interlock.core.controller import WorkflowController
from interlock.core.errors import CommandRefused, InterlockError, RunNotFound
from interlock.core.explain import explain
from interlock.core.history import read_changes
from interlock.core.models import ControlCommand, WorkflowRun, table_of_model
from interlock.core.status import RunFilter, list_runs, run_results
from interlock.core.sweep import Sweeper

from .broker_facts import add_broker_facts
from .control import READING, error_document
from .envelope import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from celery import Celery
    from sqlalchemy.orm import Session

    from interlock.core.database import Database
    from interlock.core.settings import Settings

    from .control import Command

__all__ = ["CommandHandler"]

_commands = table_of_model(ControlCommand)
_runs = table_of_model(WorkflowRun)

_ATTEMPTS = 3


class _EnqueueArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    plan: Any
    input: Any = None
    name: str | None = None
    task_description: str | None = None
    idempotency_key: str | None = None
    start_at: str | None = None


class CommandHandler:
    """Carries commands out against one database."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        known_tasks: Collection[str] | None,
        app: Celery | None = None,
    ) -> None:
        """Set up a handler.

        Args:
            database: Where.
            settings: Limits and times.
            known_tasks: Names of registered tasks; None where they are not known.
            app: Asked about queues and workers by `explain`; None where there is no broker, or no routes are known.
        """
        self._app = app
        self._database = database
        self._settings = settings
        self._known_tasks = known_tasks
        self._reading: dict[str, Callable[[Session, Command], Any]] = {
            "replay": self._replay,
            "status": self._status,
            "result": self._result,
            "list": self._list,
            "explain": self._explain,
        }
        self._verbs: dict[str, Callable[[WorkflowController, Command], Any]] = {
            "enqueue": self._enqueue,
            "create": self._create,
            "set_plan": self._set_plan,
            "start": self._start,
            "pause": self._pause,
            "resume": self._resume,
            "cancel": self._cancel,
            "approve": self._approve,
            "reject": self._reject,
            "retry": self._retry,
            "settle": self._settle,
            "rerun": self._rerun,
        }

    def handle(self, command: Command) -> dict[str, Any]:
        """Carry the command out, or find that it was, and return its outcome.

        Returns:
            `{"ok": True, "result": …}`, or `{"ok": False, "error": {"type", "code", "message"}}`.

        Raises:
            DatabaseBusy: Nothing was written; deliver the command again.
        """
        if command.command in READING:
            with self._database.session() as session:
                return _outcome(lambda: self._reading[command.command](session, command))
        if command.command == "dispatch":
            # A hint from a client that knows no routes: send what is due now, not at the next sweep. Nothing to record.
            return {"ok": True, "result": Sweeper(self._database, self._settings).redispatch()}
        for attempt in range(_ATTEMPTS):
            try:
                return self._once(command)
            except IntegrityError:
                # Another engine is carrying the same command out, or just has: its outcome is the answer.
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _once(self, command: Command) -> dict[str, Any]:
        with self._database.session() as session:
            known = select(_commands.c.outcome).where(
                _commands.c.session_id == command.session_id,
                _commands.c.id == command.id,
            )
            # The first statement writes, so that two engines meet here and not after the verb.
            connection = session.connection(execution_options={"interlock_write": True})
            stored = connection.scalar(known)
            if stored is not None:
                return dict(stored)
            connection.execute(
                insert(_commands).values(
                    session_id=command.session_id,
                    id=command.id,
                    command=command.command,
                    workflow_id=command.workflow_id,
                    actor=command.actor,
                    outcome={},
                ),
            )
            outcome = _outcome(lambda: self._carry_out(session, command))
            connection.execute(
                update(_commands)
                .where(_commands.c.session_id == command.session_id, _commands.c.id == command.id)
                .values(outcome=outcome),
            )
            return outcome

    def _carry_out(self, session: Session, command: Command) -> Any:
        controller = WorkflowController(
            session,
            command.session_id,
            settings=self._settings,
            known_tasks=self._known_tasks,
        )
        if command.if_seq is not None and command.workflow_id is not None:
            seq = session.connection().scalar(
                select(_runs.c.seq)
                .where(_runs.c.id == command.workflow_id, _runs.c.session_id == command.session_id)
                .with_for_update(),
            )
            if seq is not None and seq != command.if_seq:
                message = f"the workflow is at seq {seq}, not {command.if_seq}: look again before you decide"
                raise CommandRefused(command.command, message, code="stale")
        return self._verbs[command.command](controller, command)

    # --- verbs ---------------------------------------------------------------------------------------------------------

    def _enqueue(self, controller: WorkflowController, command: Command) -> str:
        try:
            args = _EnqueueArgs.model_validate(command.args)
        except ValidationError as error:
            raise CommandRefused("enqueue", f"args: {error.errors()[0]['msg']}", code="invalid") from error
        return controller.enqueue_workflow(
            args.plan,
            name=args.name,
            task_description=args.task_description,
            input=args.input,
            idempotency_key=args.idempotency_key,
            start_at=parse_time("args.start_at", args.start_at),
            transitioned_by=command.actor,
        )

    def _create(self, controller: WorkflowController, command: Command) -> str:
        try:
            args = _CreateArgs.model_validate(command.args)
        except ValidationError as error:
            raise CommandRefused("create", f"args: {error.errors()[0]['msg']}", code="invalid") from error
        run = controller.create_workflow(
            args.task_description,
            args.name,
            meta=args.meta,
            input=args.input,
            transitioned_by=command.actor,
        )
        controller.begin_planning(run.id, command.reason, command.actor)
        return str(run.id)

    def _set_plan(self, controller: WorkflowController, command: Command) -> None:
        controller.set_plan(_run_id(command), command.args.get("plan"))

    def _start(self, controller: WorkflowController, command: Command) -> None:
        controller.start_workflow(_run_id(command), command.reason, command.actor)

    def _pause(self, controller: WorkflowController, command: Command) -> None:
        mode, step = str(command.args.get("mode", "interrupt")), command.args.get("step")
        if step is None:
            controller.pause_workflow(_run_id(command), command.reason, command.actor, mode=mode)
        else:
            controller.pause_step(_run_id(command), str(step), command.reason, command.actor, mode=mode)

    def _resume(self, controller: WorkflowController, command: Command) -> None:
        step = command.args.get("step")
        if step is None:
            controller.resume_workflow(_run_id(command), command.reason, command.actor)
        else:
            controller.resume_step(_run_id(command), str(step), command.reason, command.actor)

    def _approve(self, controller: WorkflowController, command: Command) -> None:
        controller.approve_step(_run_id(command), _step(command), command.args.get("comment"), command.actor)

    def _reject(self, controller: WorkflowController, command: Command) -> None:
        controller.reject_step(_run_id(command), _step(command), command.args.get("comment"), command.actor)

    def _retry(self, controller: WorkflowController, command: Command) -> None:
        controller.retry_step(_run_id(command), _step(command), command.reason, command.actor)

    def _settle(self, controller: WorkflowController, command: Command) -> None:
        controller.settle_step(
            _run_id(command),
            _step(command),
            command.args.get("result"),
            command.reason,
            command.actor,
        )

    def _rerun(self, controller: WorkflowController, command: Command) -> str:
        return controller.rerun_workflow(_run_id(command), command.reason, command.actor)

    def _cancel(self, controller: WorkflowController, command: Command) -> None:
        controller.cancel_workflow(_run_id(command), command.reason, command.actor)

    # --- reading -------------------------------------------------------------------------------------------------------

    def _replay(self, session: Session, command: Command) -> list[dict[str, Any]]:
        changes = read_changes(
            session.connection(),
            _run_id(command),
            session_id=command.session_id,
            after_seq=int(command.args.get("after_seq", 0)),
            limit=min(int(command.args.get("limit", 1000)), 1000),
        )
        return [json.loads(encode(change)) for change in changes]

    def _status(self, session: Session, command: Command) -> dict[str, Any]:
        controller = WorkflowController(session, command.session_id, settings=self._settings)
        status = controller.get_workflow_status(_run_id(command))
        if status is None:
            raise RunNotFound(_run_id(command))
        return status

    def _explain(self, session: Session, command: Command) -> dict[str, Any]:
        explained = explain(session.connection(), _run_id(command), command.session_id)
        session.rollback()  # the broker may take a second or two, and needs no transaction
        return explained if self._app is None else add_broker_facts(self._app, explained)

    def _result(self, session: Session, command: Command) -> Any:
        status = self._status(session, command)  # not found, in another session's words
        step = command.args.get("step")
        results = run_results(session.connection(), _run_id(command), None if step is None else str(step))
        if step is None:
            return results
        if step not in results:
            states = {each["key"]: each["status"] for each in status["steps"]}
            msg = f"step {step} is {states[step]} and has no result" if step in states else f"there is no step {step!r}"
            raise CommandRefused("result", msg, code="no_result")
        return results[step]

    def _list(self, session: Session, command: Command) -> list[dict[str, Any]]:
        args = command.args
        wanted = RunFilter(
            status=args.get("status"),
            name=args.get("name"),
            created_after=parse_time("args.created_after", args.get("created_after")),
            created_before=parse_time("args.created_before", args.get("created_before")),
            limit=min(int(args.get("limit", 50)), 1000),
        )
        return list_runs(session.connection(), command.session_id, wanted)


def parse_time(field: str, text: object) -> datetime | None:
    """Read an aware ISO 8601 time.

    Raises:
        CommandRefused: It is none, or has no zone.
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise CommandRefused("?", f"{field}: {text!r} is not an ISO 8601 time", code="invalid") from error
    if time.tzinfo is None:
        raise CommandRefused("?", f"{field}: {text!r} has no time zone: append Z or +00:00", code="invalid")
    return time


def _run_id(command: Command) -> str:
    if command.workflow_id is None:
        raise CommandRefused(command.command, "workflow_id: is required for this command", code="invalid")
    return command.workflow_id


class _CreateArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    task_description: str
    name: str | None = None
    input: Any = None
    meta: dict[str, Any] | None = None


def _step(command: Command) -> str:
    step = command.args.get("step")
    if not isinstance(step, str):
        raise CommandRefused(command.command, "args.step: is required for this command", code="invalid")
    return step


def _outcome(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"ok": True, "result": call()}
    except InterlockError as error:
        if error.retryable:
            raise
        return {"ok": False, "error": error_document(error)}
