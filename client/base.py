"""The base of clients: their session, their actor, and the way to a database or to the control queue.

With a database, a command is carried out here, in one transaction. Without one it travels over the control queue to a worker's
engine. Both ways it is the same `Command`, handled by the same handler, so a `request_id` means the same.
"""

from __future__ import annotations

import getpass
import socket
from datetime import datetime
from typing import Any, Self
from uuid import uuid4

from celery import Celery

from interlock.core.errors import ConfigurationError, InterlockError
from interlock.core.names import check_name
from interlock.core.settings import Settings
from interlock.signals.control.command import Command, parse_args, parse_fields
from interlock.signals.control.handler import CommandHandler
from interlock.signals.control.verbs import VERBS
from interlock.signals.events.redis_connection import check_broker_url
from interlock.signals.runtime import Runtime

from .control_link import ControlLink, outcome_result
from .known_tasks import known_tasks

__all__ = ["BaseClient"]


class BaseClient:
    """Carries commands out for one session; the verbs are added by the classes that build on it."""

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
        self._has_routes = not own
        self._has_broker = not own or broker_url is not None
        self._runtime: Runtime | None = None
        self._handler: CommandHandler | None = None

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

    # --- for the verbs -------------------------------------------------------------------------------------------------

    def _call(
        self,
        verb: str,
        run_id: str | None = None,
        reason: str | None = None,
        request_id: str | None = None,
        **args: Any,
    ) -> Any:
        """Carry a command out, and return its result or raise its error.

        Args:
            verb: Its name in the table of verbs.
            run_id: The run, where the verb needs one.
            reason: Why, for the history.
            request_id: The same id again returns the first outcome; a fresh one by default.
            **args: The verb's arguments; None stands for one that is not given.
        """
        command = parse_fields(
            {
                "id": request_id or uuid4().hex,
                "command": verb,
                "session_id": self.session_id,
                "workflow_id": run_id,
                "actor": self.actor,
                "reason": reason,
                "args": {name: _plain(value) for name, value in args.items() if value is not None},
            },
        )
        result = outcome_result(self._outcome(command, fresh=request_id is None))
        if VERBS[verb].makes_due:
            self._hint(str(result or run_id))  # a verb that makes a run returns its id
        return result

    @property
    def _has_database(self) -> bool:
        """Whether commands are carried out here, and not by a worker's engine."""
        return self.settings.database_url is not None

    def _open_runtime(self) -> Runtime:
        if self._runtime is None:
            self._runtime = Runtime(self.app, self.settings, dispatches=self._has_routes, broadcasts=self._has_broker)
        return self._runtime

    def _known_tasks(self) -> frozenset[str] | None:
        """The names by which a plan's tasks are checked here; None where that is left to the workers."""
        return known_tasks(self.app) if self._has_routes and self.settings.check_tasks else None

    # --- inside --------------------------------------------------------------------------------------------------------

    def _outcome(self, command: Command, *, fresh: bool) -> dict[str, Any]:
        args = parse_args(command)
        if not self._has_database:
            return ControlLink(self.app, self.settings).handle(command)
        if self._handler is None:
            app = self.app if self._has_routes else None
            database = self._open_runtime().database
            self._handler = CommandHandler(database, self.settings, self._known_tasks(), app)
        return self._handler.handle(command, args, fresh=fresh)

    def _hint(self, run_id: str) -> None:
        """Without routes of its own, tell an engine that something of the run is due; its sweeper would find it a little later."""
        if self._has_routes or not self._has_broker or not self._has_database:
            return
        command = Command(
            id=uuid4().hex, command="dispatch", session_id=self.session_id, workflow_id=run_id, actor=self.actor
        )
        try:
            ControlLink(self.app, self.settings).send(command)
        except InterlockError:
            return  # only a hint


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


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
