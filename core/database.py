"""Opening a database, and the one way to run a transaction in it.

`Database.transact` retries what the database gave up on (deadlock, serialization, lock timeout), with everything evaluated
again, and hands the effects out only after the commit. SQLite runs in WAL with one connection per transaction, never a
shared one; PostgreSQL in READ COMMITTED, which the workflow's row lock relies on.
"""

from __future__ import annotations

import logging
import os
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from .errors import ConfigurationError, DatabaseBusy
from .events import STATE_CHANGED, Effects, EventEmitter
from .guard_rules import NO_RULES, GuardRules, attach_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

__all__ = ["Database", "is_lost_connection", "is_transient", "open_database"]

T = TypeVar("T")

logger = logging.getLogger("interlock.database")

# PostgreSQL: serialization_failure, deadlock_detected, lock_not_available.
_TRANSIENT_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
_WRITE = {"interlock_write": True}


def is_transient(error: BaseException) -> bool:
    """Whether the database itself gave the transaction up, with nothing written, so that a new try may succeed."""
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    state = getattr(original, "sqlstate", None)
    if state is not None:
        return state in _TRANSIENT_SQLSTATES
    text = str(original)
    return "database is locked" in text or "database table is locked" in text


def is_lost_connection(error: BaseException) -> bool:
    """Whether the connection broke, so that the outcome of a commit is unknown."""
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None) or ""
    # Class 57P: the server is shutting down or starting up; class 08: connection exceptions.
    return (
        error.connection_invalidated
        or state.startswith(("57P", "08"))
        or (isinstance(error, (OperationalError, InterfaceError)) and "connection" in str(error.orig).lower())
    )


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
        self._guard_rules = NO_RULES

    @property
    def dialect(self) -> str:
        """`"sqlite"` or `"postgresql"`."""
        return self.engine.dialect.name

    @property
    def guard_rules(self) -> GuardRules:
        """Guards attached to edges (`load_guard_rules`), obeyed by whatever goes through this database; none by default."""
        return self._guard_rules

    @guard_rules.setter
    def guard_rules(self, rules: GuardRules) -> None:
        self._guard_rules = rules
        attach_rules(self.engine, rules)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """An ORM session; committed at the end of the block, rolled back when the block raises."""
        session = Session(self.engine, expire_on_commit=False, info={"interlock_database": self})
        try:
            yield session
            session.commit()
        except BaseException:  # however the block ends, what it wrote must not stay half done
            session.rollback()
            raise
        finally:
            session.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for reading; nothing is kept of what is written through it."""
        with self.engine.connect() as connection:
            yield connection

    def transact(self, work: Callable[[Connection, Effects], T], *, attempts: int = 8) -> T:
        """Run `work` in a transaction of its own and deliver its effects after the commit.

        Args:
            work: Gets the connection and an empty `Effects` to fill; called again after a transient failure.
            attempts: How often to try.

        Raises:
            DatabaseBusy: The database gave up on every try.
        """
        for attempt in range(1, attempts + 1):
            effects = Effects()
            try:
                with self.engine.connect().execution_options(**_WRITE) as connection, connection.begin():
                    result = work(connection, effects)
            except DBAPIError as error:
                if not is_transient(error):
                    raise
                if attempt == attempts:
                    msg = f"the database gave up on the transaction {attempts} times: {error.orig}"
                    raise DatabaseBusy(msg) from error
                # Nothing was written; losers of a deadlock must not meet again at once.
                time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter, not a secret
            else:
                self.deliver(effects, self.emitter)
                return result
        raise AssertionError  # pragma: no cover - the loop returns or raises

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

    def dispose(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()


def open_database(url: str, **engine_options: Any) -> Database:
    """Open the database at `url`.

    Args:
        url: `sqlite:///path/to/file.db` or `postgresql://user@host/name` (psycopg is used when no driver is named).
        **engine_options: Passed to `sqlalchemy.create_engine`.

    Raises:
        ConfigurationError: Neither SQLite nor PostgreSQL, or its driver is not installed.
    """
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    name = parsed.get_backend_name()
    if name not in ("sqlite", "postgresql"):
        msg = f"database_url: {name!r} is not supported; use sqlite:/// or postgresql://"
        raise ConfigurationError(msg)
    options: dict[str, Any] = {"pool_pre_ping": name == "postgresql", **engine_options}
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
    _opened.add(engine)
    return Database(engine)


_opened: WeakSet[Engine] = WeakSet()
_inherited: list[object] = []


def _leave_connections_to_parent() -> None:
    """In a process that was just forked: its parent goes on using what it had connected, so start with an empty pool."""
    for engine in list(_opened):
        _inherited.append(engine.pool)  # kept unused: a connection that is thrown away says goodbye to the server
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_connections_to_parent)


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
