"""Carries control commands out, each once, as the table of verbs says.

A command and its outcome are one transaction: the outcome is stored under the command's id, so that the same id again,
redelivered or repeated by a client that got no answer, is answered with the first outcome.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from interlock.core.database.dialects import insert_new
from interlock.core.database.sessions import OpenTransaction
from interlock.core.database.tables import ControlCommand, WorkflowRun, table_of_model
from interlock.core.errors import CommandRefused, InterlockError
from interlock.core.fault_points import fault_point
from interlock.core.operations.controller import WorkflowController

from .error_documents import error_document
from .verbs import VERBS, Change, Hint, parameters_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from celery import Celery
    from sqlalchemy import Connection

    from interlock.core.database.database import Database
    from interlock.core.events import Effects
    from interlock.core.settings import Settings

    from .command import Command
    from .fields import Args
    from .verbs import Query, Verb

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

    def handle(self, command: Command, args: Args, *, fresh: bool = False) -> dict[str, Any]:
        """Carry the command out, or find that it was, and return its outcome.

        Args:
            command: What to do.
            args: Its arguments, by `parse_args`.
            fresh: Its id was made for this call, so that nobody else can come with it.

        Returns:
            `{"ok": True, "result": …}`, or `{"ok": False, "error": {"type", "message", "fields"}}`.

        Raises:
            DatabaseBusy: The database gave up on every try, and nothing was written; deliver the command again.
        """
        verb = VERBS[command.command]
        try:
            if isinstance(verb, Change):
                return self._store(command, partial(self._change, verb, command, args), fresh=fresh)
            return {"ok": True, "result": self._answer(verb, command, args)}
        except InterlockError as error:
            if error.retryable:
                raise
            refused = {"ok": False, "error": error_document(error)}
        # What the verb had done before it was refused is rolled back; that it was refused is an outcome like another.
        return self._store(command, lambda *_: refused, fresh=fresh) if isinstance(verb, Change) else refused

    # --- changes -------------------------------------------------------------------------------------------------------

    def _store(
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

    def _change(
        self, verb: Change, command: Command, args: Args, connection: Connection, effects: Effects
    ) -> dict[str, Any]:
        if command.if_seq is not None and command.workflow_id is not None:
            _require_seq(connection, command, command.if_seq)
        controller = WorkflowController(
            OpenTransaction(connection, effects),
            command.session_id,
            self._database.emitter,
            settings=self._settings,
            known_tasks=self._known_tasks,
        )
        given = _given(verb, command, args)
        step = given.pop("step", None)
        operation = verb.operation(step)
        said = {"step": step, "reason": command.reason, "transitioned_by": command.actor}
        given |= {name: said[name] for name in said.keys() & parameters_of(operation)}
        made = operation(controller, **given)
        return {"ok": True, "result": made if isinstance(made, str) else None}  # set_plan returns what its sender has

    # --- the rest: nothing is stored -----------------------------------------------------------------------------------

    def _answer(self, verb: Query | Hint, command: Command, args: Args) -> Any:
        if isinstance(verb, Hint):
            return verb.act(self._database, self._settings, session_id=command.session_id, run_id=command.workflow_id)
        given = _given(verb, command, args)

        def read(connection: Connection) -> Any:
            found = verb.read(connection, session_id=command.session_id, **given)
            return found if verb.as_json is None else verb.as_json(found)

        answer = self._database.read(read)
        return answer if verb.ask_broker is None or self._app is None else verb.ask_broker(self._app, answer)


def _given(verb: Verb, command: Command, args: Args) -> dict[str, Any]:
    """What a verb's operation is called with: the run and the arguments, by name, without a copy of payloads."""
    given = {name: getattr(args, name) for name in type(args).model_fields}
    return {"run_id": command.workflow_id, **given} if verb.needs_run else given


def _require_seq(connection: Connection, command: Command, seq: int) -> None:
    """Lock the run, and refuse the command where it has moved since its sender looked."""
    found = connection.scalar(
        select(_runs.c.seq)
        .where(_runs.c.id == command.workflow_id, _runs.c.session_id == command.session_id)
        .with_for_update(),
    )
    if found is not None and found != seq:
        message = f"the workflow is at seq {found}, not {seq}: look again before you decide"
        raise CommandRefused(command.command, message, code="stale")


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
