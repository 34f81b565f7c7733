"""Opening a database, and the one way to run a transaction in it.

`Database.transact` retries what the database gave up on (deadlock, serialization, lock timeout), with everything evaluated
again, and hands the effects out only after the commit. SQLite runs in WAL with one connection per transaction, never a
shared one; PostgreSQL in READ COMMITTED, which the workflow's row lock relies on.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from interlock.core.errors import ConfigurationError
from interlock.core.events import STATE_CHANGED, Effects, EventEmitter
from interlock.core.redaction import redacted_url

from .connections import KeptConnections
from .errors import READ_ONLY, is_transient
from .retrying import retry_transient, run_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext

__all__ = ["Database", "open_database"]

T = TypeVar("T")

logger = logging.getLogger("interlock.database")


def _means_no_row(error: DBAPIError) -> bool:
    """Whether a value cannot be of the column's type, such as an id that is no UUID: then no row is meant."""
    return (getattr(error.orig, "sqlstate", None) or "").startswith("22")


class Database:
    """An engine with the settings Interlock needs, and what is to happen after commits.

    Attributes:
        engine: The SQLAlchemy engine.
        emitter: In-process listeners for what is moved through `transact`.
        after_commit: Called in order with the effects of each committed transaction. They must not raise.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.emitter = EventEmitter()
        self.after_commit: list[Callable[[Effects], None]] = []
        self._kept = KeptConnections(engine)
        _opened.add(self)

    def __repr__(self) -> str:
        """Name the place without its credentials."""
        return f"<Database {redacted_url(self.engine.url.render_as_string())}>"

    @property
    def dialect(self) -> str:
        """`"sqlite"` or `"postgresql"`."""
        return self.engine.dialect.name

    @contextmanager
    def session(self) -> Iterator[Session]:
        """An ORM session; committed at the end of the block, rolled back when the block raises."""
        session = Session(self.engine, expire_on_commit=False, info={"interlock_database": self})
        try:
            try:
                yield session
            except BaseException:  # however the block ends, what it wrote must not stay half done
                session.rollback()
                raise
            session.commit()
        finally:
            session.close()  # a commit that failed is rolled back with it

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for reading; nothing is kept of what is written through it."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._kept.take() as connection, connection.begin():
            yield connection

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run a reading `work` on a connection of its own, again after a transient failure.

        Raises:
            DatabaseBusy: The database gave up on every try.
        """

        def once() -> T:
            with self.reading() as connection:
                return work(connection)

        return retry_transient(once)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection for reading whose statements all see the database as it is at the first one, whoever writes meanwhile.

        Keep the block short: while it is open PostgreSQL cannot vacuum, and SQLite cannot empty its write-ahead log.
        """
        options: dict[str, Any] = {}  # SQLite: every transaction reads one snapshot
        if self.dialect == "postgresql":
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self.engine.connect().execution_options(**options) as connection:
            yield connection

    def transact(self, work: Callable[[Connection, Effects], T], kind: str = "upkeep", subject: str = "") -> T:
        """Run `work` in a transaction of its own and deliver its effects after the commit.

        Args:
            work: Gets the connection and an empty `Effects` to fill; called again after a transient failure.
            kind: Names its fault points.
            subject: What it is about, for them.

        Raises:
            DatabaseBusy: The database gave up on every try.
        """
        result, effects = run_transaction(self._writing, work, kind, subject)
        self.deliver(effects, self.emitter)
        return result

    def send_prepared(
        self, name: str, statement: str, parameters: Sequence[bytes]
    ) -> Callable[[], list[list[bytes | None]]]:
        """Send one hand-shaped statement as a transaction of its own; see `KeptConnections.send_prepared`.

        Returns:
            What waits for its rows, to be called in any case; none where the database gave it up and nothing was written.
        """
        sent = self._kept.send_prepared(name, statement, parameters)

        def rows() -> list[list[bytes | None]]:
            try:
                return sent.rows()
            except DBAPIError as error:
                if is_transient(error) or _means_no_row(error):
                    return []
                raise

        return rows

    def deliver(self, effects: Effects, emitter: EventEmitter) -> None:
        """Hand committed effects to whoever is attached, and then to the in-process listeners of `emitter`."""
        if not effects:
            return
        for handler in self.after_commit:
            try:
                handler(effects)
            except Exception:  # the commit stands, so a hint that cannot be sent must not look like a failure
                logger.exception("after-commit handler %r failed; the sweeper will make it good", handler)
        if emitter.listens(STATE_CHANGED):
            for change in effects.changes:
                emitter.emit(STATE_CHANGED, change.data())

    def prepare_connections(self, idle_transaction_s: float) -> None:
        """Have PostgreSQL look for rows by indexes, and end a transaction in which nothing has happened for that long.

        Every statement of a worker or client has an index for what it looks for. But a plan that is made while a table is small
        reads all of it, and is kept, with the connection, while the table grows.

        A process that stands still in the middle of a transaction, or a machine that is gone without a word, would keep its
        workflow locked until TCP gives up, which is hours. SQLite has no such limit: its processes live and die on one machine.
        """
        if self.dialect != "postgresql":
            return
        limit_ms = str(max(round(idle_transaction_s * 1000), 1))
        limit = "set_config('idle_in_transaction_session_timeout', %s, false)"
        statement = f"SELECT {limit}, set_config('enable_seqscan', 'off', false)"

        def prepare(connection: Any, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
            # Through a pooler that hands statements to different servers no plan is kept, and settings reach others.
            connection.execute(
                statement if connection.prepare_threshold is not None else f"SELECT {limit}", (limit_ms,)
            )
            connection.commit()

        event.listen(self.engine, "connect", prepare)

    def disown(self) -> None:
        """Start with an empty pool, and leave every connection to the process that opened it."""
        # Kept unused: a connection that is thrown away says goodbye to the server.
        _inherited.extend((self.engine.pool, *self._kept.disown()))
        self.engine.dispose(close=False)

    def dispose(self) -> None:
        """Close the pooled connections."""
        self._kept.close()
        self.engine.dispose()


def open_database(url: str, **engine_options: Any) -> Database:
    """Open the database at `url`.

    Args:
        url: `sqlite:///path/to/file.db` or `postgresql://user@host/name` (psycopg is used when no driver is named).
        **engine_options: Passed to `sqlalchemy.create_engine`.

    Raises:
        ConfigurationError: Neither SQLite nor PostgreSQL, or its driver is not installed.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        msg = (
            "database_url: it cannot be read; use sqlite:/// or postgresql://, special characters of a password escaped"
        )
        raise ConfigurationError(msg) from None  # the cause may quote a piece of the password
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    name = parsed.get_backend_name()
    if name not in ("sqlite", "postgresql"):
        msg = f"database_url: {name!r} is not supported; use sqlite:/// or postgresql://"
        raise ConfigurationError(msg)
    # Errors and logs tell the statement, never the values: they are people's data.
    options: dict[str, Any] = {"pool_pre_ping": name == "postgresql", "hide_parameters": True, **engine_options}
    if name == "sqlite":
        options.setdefault("connect_args", {}).setdefault("timeout", 30)
    else:
        options.setdefault("isolation_level", "READ COMMITTED")
    try:
        engine = create_engine(parsed, **options)
    except ModuleNotFoundError as missing:
        msg = f"database_url needs {missing.name}: pip install 'interlock-celery[postgres]'"
        raise ConfigurationError(msg) from missing
    if name == "sqlite":
        _prepare_sqlite(engine)
    else:
        event.listen(engine, "handle_error", _leave_values_out)
        event.listen(engine, "handle_error", _leave_read_only_server)
    return Database(engine)


_opened: WeakSet[Database] = WeakSet()
_inherited: list[object] = []


def _leave_connections_to_parent() -> None:
    """In a process that was just forked: its parent goes on using what it had connected, so start with an empty pool."""
    for database in list(_opened):
        database.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_connections_to_parent)


def _leave_read_only_server(context: ExceptionContext) -> None:
    """A server that has become read-only is not the primary any more: connect anew, to whoever is."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _leave_values_out(context: ExceptionContext) -> None:
    """PostgreSQL's DETAIL and CONTEXT quote rows and documents; its first line names constraint, column and type."""
    error, wrapped = context.original_exception, context.sqlalchemy_exception
    said = getattr(getattr(error, "diag", None), "message_primary", None)
    if said is not None:
        error.args = (said,)
        if wrapped is not None:
            wrapped.args = (f"({type(error).__module__}.{type(error).__name__}) {said}", *wrapped.args[1:])


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(dbapi_connection: Any, record: Any) -> None:  # noqa: ARG001 - SQLAlchemy's signature
        # The driver must not begin transactions by itself: BEGIN IMMEDIATE below is what keeps writers apart.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # A transaction that will write takes the lock first: a read snapshot cannot be upgraded once it is stale.
        write = connection.get_execution_options().get("interlock_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
