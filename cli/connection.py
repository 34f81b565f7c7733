"""Opens a client as the shared options say: given addresses, else the app's configuration, else a running `interlock dev`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .applications import load_app, use_broker
from .dev.server_state import DATABASE, database_url_in, find_server
from .failures import AppNotFound, NoServer
from .output.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from interlock.client.client import Client

    from .dev.server_state import ServerState
    from .options import Options

__all__ = ["Target", "connect", "database_url", "find_record", "find_target", "open_client"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect to.

    Attributes:
        app: The Celery app, or None where addresses are enough.
        database_url: SQLAlchemy URL, or None: by the app's configuration, or by the control queue alone.
        broker_url: URL of the broker, or None: by the app's configuration.
        redis_url: URL of Redis, or None: by the app's configuration.
        embedded: Whether it is the running server of a data folder.
    """

    app: Celery | None = None
    database_url: str | None = field(default=None, repr=False)
    broker_url: str | None = field(default=None, repr=False)
    redis_url: str | None = field(default=None, repr=False)
    embedded: bool = False

    @property
    def is_meant(self) -> bool:
        """Whether Interlock is known to be there: an address was given, or a database is configured, or a server runs.

        An app's own broker says only that it is a Celery app.
        """
        configured = self.app is not None and self.app.conf.get("interlock_database_url")
        return bool(self.database_url or self.broker_url or configured)


def find_target(options: Options, *, with_app: bool = False) -> Target | None:
    """Decide where a command goes.

    Addresses that are given (options, then environment) win; then a database in the app's configuration; then the
    embedded server that runs on the data folder, unless the app that was named is another one with a broker of its own.

    Args:
        options: The shared options, environment included.
        with_app: Load an embedded server's app where none was named: it knows which tasks there are.

    Returns:
        None where nothing is known of any server.

    Raises:
        AppNotFound: The app that was named is not there.
    """
    app = options.application or (load_app(options.app) if options.app else None)
    given = Target(app, options.database_url, options.broker_url, options.redis_url)
    if given.database_url or given.broker_url or (app is not None and app.conf.get("interlock_database_url")):
        return given
    state = find_server(options.data_dir)
    if app is not None and (state is None or not _may_serve(state, options, app)):
        return given if app.conf.broker_url else None
    if state is None:
        return None
    if app is None and with_app:
        app = _app_of_server(state.app)
    if app is not None:
        use_broker(app, state.broker_url)
    return Target(app, state.database_url, state.broker_url, options.redis_url or state.redis_url, embedded=True)


def find_record(options: Options) -> Target | None:
    """The database of an embedded server that does not run: to look at, and to say what is to happen when it does."""
    if not (options.data_dir / DATABASE).is_file():
        return None
    return Target(database_url=database_url_in(options.data_dir))


def open_client(options: Options, target: Target | None) -> Client:
    """A client for a target.

    Raises:
        NoServer: There is no target; the message says what to do.
    """
    from interlock.client.client import Client

    if target is None:
        message = (
            "which server? Start one with `interlock dev -A module:app` in this folder, "
            "or name one with --database-url and --broker-url, or with -A module:app that is configured"
        )
        raise NoServer(message)
    return Client(
        target.app,
        database_url=target.database_url,
        broker_url=target.broker_url,
        redis_url=target.redis_url,
        session_id=options.session_id,
        actor=options.actor_name,
    )


@contextmanager
def connect(options: Options, *, with_app: bool = False) -> Iterator[Client]:
    """A client by the shared options, closed at the end of the block; see `find_target` and `find_record`."""
    target = find_target(options, with_app=with_app)
    if target is None:
        target = find_record(options)
        if target is not None:
            Screen.of(options).note(
                f"no server runs in {options.data_dir}: this is its record, and nothing moves in it"
            )
    client = open_client(options, target)
    try:
        yield client
    finally:
        client.close()


def database_url(options: Options) -> str:
    """The URL of the database that the options lead to.

    Raises:
        NoServer: They lead to none.
    """
    target = find_target(options) or find_record(options)
    url = None if target is None else target.database_url
    if url is None and target is not None and target.app is not None:
        url = target.app.conf.get("interlock_database_url")
    if url is None:
        message = "which database? Give --database-url, set INTERLOCK_DATABASE_URL, or name a configured app with -A"
        raise NoServer(message)
    return str(url)


def _may_serve(state: ServerState, options: Options, app: Celery) -> bool:
    if not app.conf.broker_url:
        return True
    module, _, attribute = state.app.partition(":")
    if options.app is not None and options.app.partition(":")[0] == module:
        return True
    return getattr(sys.modules.get(module), attribute or "app", None) is app


def _app_of_server(name: str) -> Celery | None:
    try:
        return load_app(name)
    except AppNotFound:  # called from another folder; the server's own sweeper sends the tasks
        return None
