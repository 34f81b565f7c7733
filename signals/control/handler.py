"""Control commands carried out, each once.

A command and its outcome are one transaction: the outcome is stored under the command's id, so that the same id again,
redelivered or repeated by a client that got no answer, is answered with the first outcome.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from interlock.core.database.dialects import insert_new
from interlock.core.database.sessions import OpenTransaction
from interlock.core.database.tables import ControlCommand, WorkflowRun, table_of_model
from interlock.core.errors import CommandRefused, InterlockError, RunNotFound
from interlock.core.events import Effects
from interlock.core.fault_points import fault_point
from interlock.core.operations.controller import WorkflowController
from interlock.core.queries.explain import explain
from interlock.core.queries.history import PAGE, read_changes
from interlock.core.queries.status import RunFilter, list_runs, run_results
from interlock.core.sweeper.redispatch import Redispatcher
from interlock.signals.dispatch.broker_inspection import add_broker_facts
from interlock.signals.events.cloud_event import encode

from .command import READING
from .command_args import read_args
from .error_documents import error_document

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from celery import Celery
    from sqlalchemy import Connection

    from interlock.core.database.database import Database
    from interlock.core.settings import Settings

    from .command import Command
    from .command_args import (
        Args,
        CreateArgs,
        DecisionArgs,
        EnqueueArgs,
        ListArgs,
        MaybeStepArgs,
        NoArgs,
        PauseArgs,
        PlanArgs,
        ReplayArgs,
        SettleArgs,
        StepArgs,
    )

__all__ = ["CommandHandler"]

_commands = table_of_model(ControlCommand)
_runs = table_of_model(WorkflowRun)

_STORE = insert(_commands)
_END = (
    update(_commands)
    .where(_commands.c.session_id == bindparam("of_session"), _commands.c.id == bindparam("of_id"))
    .values(outcome=bindparam("outcome"))
)


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
        self._reading: dict[str, Callable[[Connection, Command, Any], Any]] = {
            "replay": self._replay,
            "status": self._status,
            "result": self._result,
            "list": self._list,
            "explain": self._explain,
        }
        self._verbs: dict[str, Callable[[WorkflowController, Command, Any], Any]] = {
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

    def handle(self, command: Command, *, fresh: bool = False) -> dict[str, Any]:
        """Carry the command out, or find that it was, and return its outcome.

        Args:
            command: What to do.
            fresh: Its id was made for this call, so that nobody else can come with it.

        Returns:
            `{"ok": True, "result": …}`, or `{"ok": False, "error": {"type", "code", "message"}}`.

        Raises:
            DatabaseBusy: The database gave up on every try, and nothing was written; deliver the command again.
        """
        try:
            args = read_args(command)
        except CommandRefused as refusal:
            return {"ok": False, "error": error_document(refusal)}
        if command.command in READING:
            return self._database.read(lambda connection: self._look(connection, command, args))
        if command.command == "dispatch":
            # A hint from a client that knows no routes: send what is due now, as far as the pace allows, and not at the next
            # sweep. Nothing to record, and nothing to tell: whoever is due is sent sooner or later.
            redispatcher = Redispatcher(self._database, self._settings)
            redispatcher.send_due(session_id=command.session_id, run_id=command.workflow_id)
            return {"ok": True, "result": None}
        try:
            return self._transact(command, partial(self._carry_out, command, args), fresh=fresh)
        except InterlockError as error:
            if error.retryable:
                raise
            outcome = {"ok": False, "error": error_document(error)}
        # What the verb had done before it was refused is rolled back; that it was refused is an outcome like another.
        return self._transact(command, lambda *_: outcome, fresh=fresh)

    def _look(self, connection: Connection, command: Command, args: Args) -> dict[str, Any]:
        return _outcome(lambda: self._reading[command.command](connection, command, args))

    def _transact(
        self, command: Command, act: Callable[[Connection, Effects], dict[str, Any]], *, fresh: bool
    ) -> dict[str, Any]:
        """Do something once for the command's id, in one transaction with its outcome."""

        def work(connection: Connection, effects: Effects) -> dict[str, Any]:
            # The first statement writes, so that two engines meet here and not after the verb.
            stored = None if fresh else _begun(connection, command)
            if stored is not None:
                return stored
            outcome = act(connection, effects)
            if fresh:
                connection.execute(_STORE, {**_columns(command), "outcome": outcome})
            else:
                connection.execute(_END, {"of_session": command.session_id, "of_id": command.id, "outcome": outcome})
            fault_point("command.commit", f"{command.command} {command.id}")
            return outcome

        return self._database.transact(work, "verb")

    def _carry_out(self, command: Command, args: Args, connection: Connection, effects: Effects) -> dict[str, Any]:
        controller = self._controller(connection, effects, command)
        if command.if_seq is not None and command.workflow_id is not None:
            seq = connection.scalar(
                select(_runs.c.seq)
                .where(_runs.c.id == command.workflow_id, _runs.c.session_id == command.session_id)
                .with_for_update(),
            )
            if seq is not None and seq != command.if_seq:
                message = f"the workflow is at seq {seq}, not {command.if_seq}: look again before you decide"
                raise CommandRefused(command.command, message, code="stale")
        return {"ok": True, "result": self._verbs[command.command](controller, command, args)}

    def _controller(self, connection: Connection, effects: Effects, command: Command) -> WorkflowController:
        return WorkflowController(
            OpenTransaction(connection, effects),
            command.session_id,
            self._database.emitter,
            settings=self._settings,
            known_tasks=self._known_tasks,
        )

    # --- verbs ---------------------------------------------------------------------------------------------------------

    def _enqueue(self, controller: WorkflowController, command: Command, args: EnqueueArgs) -> str:
        return controller.enqueue_workflow(
            args.plan,
            name=args.name,
            task_description=args.task_description,
            input=args.input,
            idempotency_key=args.idempotency_key,
            start_at=args.start_at,
            transitioned_by=command.actor,
        )

    def _create(self, controller: WorkflowController, command: Command, args: CreateArgs) -> str:
        return controller.create_unplanned(
            args.task_description,
            args.name,
            input=args.input,
            meta=args.meta,
            transitioned_by=command.actor,
            reason=command.reason,
        )

    def _set_plan(self, controller: WorkflowController, command: Command, args: PlanArgs) -> None:
        controller.set_plan(_run_id(command), args.plan)

    def _start(self, controller: WorkflowController, command: Command, _: NoArgs) -> None:
        controller.start_workflow(_run_id(command), command.reason, command.actor)

    def _pause(self, controller: WorkflowController, command: Command, args: PauseArgs) -> None:
        run_id, who = _run_id(command), (command.reason, command.actor)
        if args.step is None:
            controller.pause_workflow(run_id, *who, mode=args.mode)
        else:
            controller.pause_step(run_id, args.step, *who, mode=args.mode)

    def _resume(self, controller: WorkflowController, command: Command, args: MaybeStepArgs) -> None:
        run_id, who = _run_id(command), (command.reason, command.actor)
        if args.step is None:
            controller.resume_workflow(run_id, *who)
        else:
            controller.resume_step(run_id, args.step, *who)

    def _approve(self, controller: WorkflowController, command: Command, args: DecisionArgs) -> None:
        controller.approve_step(_run_id(command), args.step, args.comment, command.actor)

    def _reject(self, controller: WorkflowController, command: Command, args: DecisionArgs) -> None:
        controller.reject_step(_run_id(command), args.step, args.comment, command.actor)

    def _retry(self, controller: WorkflowController, command: Command, args: StepArgs) -> None:
        controller.retry_step(_run_id(command), args.step, command.reason, command.actor)

    def _settle(self, controller: WorkflowController, command: Command, args: SettleArgs) -> None:
        controller.settle_step(_run_id(command), args.step, args.result, command.reason, command.actor)

    def _rerun(self, controller: WorkflowController, command: Command, _: NoArgs) -> str:
        return controller.rerun_workflow(_run_id(command), command.reason, command.actor)

    def _cancel(self, controller: WorkflowController, command: Command, _: NoArgs) -> None:
        controller.cancel_workflow(_run_id(command), command.reason, command.actor)

    # --- reading -------------------------------------------------------------------------------------------------------

    def _replay(self, connection: Connection, command: Command, args: ReplayArgs) -> list[dict[str, Any]]:
        changes = read_changes(
            connection,
            _run_id(command),
            session_id=command.session_id,
            after_seq=args.after_seq,
            limit=min(args.limit, PAGE),
        )
        return [json.loads(encode(change)) for change in changes]

    def _status(self, connection: Connection, command: Command, _: Args) -> dict[str, Any]:
        status = self._controller(connection, Effects(), command).get_workflow_status(_run_id(command))
        if status is None:
            raise RunNotFound(_run_id(command))
        return status

    def _explain(self, connection: Connection, command: Command, _: Args) -> dict[str, Any]:
        explained = explain(connection, _run_id(command), command.session_id)
        connection.rollback()  # the broker may take a second or two, and needs no transaction
        return explained if self._app is None else add_broker_facts(self._app, explained)

    def _result(self, connection: Connection, command: Command, args: MaybeStepArgs) -> Any:
        run_id, step = _run_id(command), args.step
        here = select(_runs.c.id).where(_runs.c.id == run_id, _runs.c.session_id == command.session_id)
        if connection.scalar(here) is None:
            raise RunNotFound(run_id)
        results = run_results(connection, run_id, step)
        if step is None:
            return results
        if step not in results:
            states = {each["key"]: each["status"] for each in self._status(connection, command, args)["steps"]}
            msg = f"step {step} is {states[step]} and has no result" if step in states else f"there is no step {step!r}"
            raise CommandRefused("result", msg, code="no_result")
        return results[step]

    def _list(self, connection: Connection, command: Command, args: ListArgs) -> list[dict[str, Any]]:
        wanted = RunFilter(
            status=args.status,
            name=args.name,
            created_after=args.created_after,
            created_before=args.created_before,
            limit=min(args.limit, PAGE),
        )
        return list_runs(connection, command.session_id, wanted)


def _run_id(command: Command) -> str:
    if command.workflow_id is None:
        raise CommandRefused(command.command, "workflow_id: is required for this command", code="invalid")
    return command.workflow_id


def _outcome(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"ok": True, "result": call()}
    except InterlockError as error:
        if error.retryable:
            raise
        return {"ok": False, "error": error_document(error)}


def _begun(connection: Connection, command: Command) -> dict[str, Any] | None:
    """Note that the command is being carried out; its outcome where it was, by whoever comes first."""
    known = select(_commands.c.outcome).where(
        _commands.c.session_id == command.session_id, _commands.c.id == command.id
    )
    while not insert_new(connection, _commands, {**_columns(command), "outcome": {}}):
        stored = connection.scalar(known)
        if stored is not None:  # else it has just been forgotten for its age
            return dict(stored)
    return None


def _columns(command: Command) -> dict[str, Any]:
    return {
        "session_id": command.session_id,
        "id": command.id,
        "command": command.command,
        "workflow_id": command.workflow_id,
        "actor": command.actor,
    }
