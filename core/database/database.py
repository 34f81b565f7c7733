"""Opens a database, and runs transactions in it.

`Database.transact` runs a transaction again that the database gave up (deadlock, serialization failure, lock timeout), and
delivers its effects after the commit. What differs between SQLite and PostgreSQL is in `dialects`.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from interlock.core.errors import ConfigurationError
from interlock.core.events import STATE_CHANGED, Effects, EventEmitter
from interlock.core.fault_points import fault_point
from interlock.core.redaction import redacted_url

from .connections import PinnedConnections
from .dialects import DEFAULT_DRIVERS, dialect_named, dialect_of
from .errors import is_transient
from .retrying import retry_transient, run_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection, Engine

    from .connections import PendingResult, PreparedStatement

__all__ = ["Database", "open_database"]

T = TypeVar("T")

logger = logging.getLogger("interlock.database")


def _means_no_row(error: DBAPIError) -> bool:
    """Whether a value cannot be of the column's type, such as an id that is no UUID: then no row is meant."""
    return (getattr(error.orig, "sqlstate", None) or "").startswith("22")


class Database:
    """An engine with the settings that Interlock needs, and handlers that are called after commits.

    Attributes:
        engine: The SQLAlchemy engine.
        emitter: In-process listeners for what is moved through `transact`.
        after_commit: Called in order with the effects of each committed transaction. They must not raise.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.emitter = EventEmitter()
        self.after_commit: list[Callable[[Effects], None]] = []
        self._dialect = dialect_of(engine)
        self._connections = PinnedConnections(engine)
        _opened.add(self)

    def __repr__(self) -> str:
        """Name the place without its credentials."""
        return f"<Database {redacted_url(self.engine.url.render_as_string())}>"

    @property
    def dialect(self) -> str:
        """`"sqlite"` or `"postgresql"`."""
        return self._dialect.name

    @property
    def sends_prepared(self) -> bool:
        """Whether `send_prepared` can be used."""
        return self._dialect.sends_prepared

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
        with self._connections.take() as connection, connection.begin():
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
        options = self._dialect.snapshot_options
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

    def run_prepared(
        self, statement: PreparedStatement, parameters: Sequence[bytes], kind: str, subject: str
    ) -> list[list[bytes | None]]:
        """Run one hand-shaped statement of PostgreSQL as a transaction of its own; its effects are the caller's to deliver.

        Args:
            statement: Prepared once per connection.
            parameters: As texts.
            kind: Names its fault points.
            subject: What it is about, for them.

        Returns:
            Its rows, as texts; none also where the database gave it up with nothing written, or no id can look like a parameter.

        Raises:
            DBAPIError: The connection was lost, and whether it was committed is not known.
        """
        pending = self._connections.send_prepared(statement, parameters)
        try:
            fault_point(f"{kind}.sent", subject)
        finally:
            rows = self._rows_of(pending)
        return rows

    @staticmethod
    def _rows_of(pending: PendingResult) -> list[list[bytes | None]]:
        try:
            return pending.rows()
        except DBAPIError as error:
            if is_transient(error) or _means_no_row(error):
                return []
            raise

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
        """Have PostgreSQL prefer indexes, and end a transaction in which nothing has happened for `idle_transaction_s`.

        Every statement of a worker or client has an index for what it looks for. But a plan that is made while a table is small
        reads all of it, and is kept, with the connection, while the table grows.

        A process that stands still in the middle of a transaction, or a machine that vanished, would keep its run locked until
        TCP gives up, which takes hours.
        """
        self._dialect.prepare_connections(self.engine, idle_transaction_s)

    def disown(self) -> None:
        """Start with an empty pool, and leave every connection to the process that opened it."""
        # Keep a reference: collecting an inherited connection would send Terminate on the parent's socket.
        _inherited.extend((self.engine.pool, *self._connections.disown()))
        self.engine.dispose(close=False)

    def dispose(self) -> None:
        """Close the pooled connections."""
        self._connections.close()
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
    parsed = parsed.set(drivername=DEFAULT_DRIVERS.get(parsed.drivername, parsed.drivername))
    dialect = dialect_named(parsed.get_backend_name())
    # Errors and logs tell the statement, never the values: they are people's data.
    options = dialect.engine_options({"hide_parameters": True, **engine_options})
    try:
        engine = create_engine(parsed, **options)
    except ModuleNotFoundError as missing:
        msg = f"database_url needs {missing.name}: pip install 'interlock-celery[postgres]'"
        raise ConfigurationError(msg) from missing
    dialect.prepare_engine(engine)
    return Database(engine)


_opened: WeakSet[Database] = WeakSet()
_inherited: list[object] = []


def _leave_connections_to_parent() -> None:
    """In a process that was just forked: its parent goes on using what it had connected, so start with an empty pool."""
    for database in list(_opened):
        database.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_connections_to_parent)
