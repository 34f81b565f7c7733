"""Everything that differs between SQLite and PostgreSQL, one class for each; ask `dialect_of` for an engine's.

What an SQL expression looks like on either is said beside the expression, in `types`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import event, false, update
from sqlalchemy.dialects import postgresql, sqlite

from interlock.core.errors import ConfigurationError

from .errors import READ_ONLY
from .tables import WorkflowRun, table_of_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Engine, Table
    from sqlalchemy.engine import ExceptionContext

__all__ = ["DEFAULT_DRIVERS", "DatabaseDialect", "dialect_named", "dialect_of", "insert_new"]

_runs = table_of_model(WorkflowRun)


class DatabaseDialect(ABC):
    """One kind of database.

    Attributes:
        name: SQLAlchemy's.
        is_server: Whether it is a server with settings, clients and a state of its own, and not a file of this process.
        writes_in_ctes: Whether a statement may contain others that write (`WITH … AS (INSERT …)`), so that what belongs
            together is one round trip.
        sends_prepared: Whether `Database.send_prepared` can be used.
        snapshot_options: Execution options of a connection whose statements all see the same snapshot.
    """

    name: ClassVar[str]
    is_server: ClassVar[bool]
    writes_in_ctes: ClassVar[bool]
    sends_prepared: ClassVar[bool]
    snapshot_options: ClassVar[Mapping[str, Any]]
    insert: ClassVar[Any]

    @abstractmethod
    def engine_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options of `create_engine`: these, and what they leave open."""

    @abstractmethod
    def prepare_engine(self, engine: Engine) -> None:
        """Attach what every connection of a new engine needs."""

    @abstractmethod
    def prepare_connections(self, engine: Engine, idle_transaction_s: float) -> None:
        """Attach what the connections of a worker or client need in addition; see `Database.prepare_connections`."""

    @abstractmethod
    def take_write_lock(self, connection: Connection) -> None:
        """Take the lock of the whole database, where it has one, before a transaction that will write reads what it is about."""


class Sqlite(DatabaseDialect):
    """A file in WAL mode, with one connection per transaction and one writer at a time."""

    name = "sqlite"
    is_server = False
    writes_in_ctes = False
    sends_prepared = False
    snapshot_options: ClassVar[Mapping[str, Any]] = {}  # every transaction reads one snapshot
    insert = staticmethod(sqlite.insert)

    def engine_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Wait 30 s for another writer."""
        return {**options, "connect_args": {"timeout": 30, **options.get("connect_args", {})}}

    def prepare_engine(self, engine: Engine) -> None:
        """Set the pragmas, and have transactions begin as they go on: `interlock_write` takes the write lock at once."""
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "begin", _begin)

    def prepare_connections(self, engine: Engine, idle_transaction_s: float) -> None:
        """Nothing: its processes live and die on one machine, and its plans are made anew."""

    def take_write_lock(self, connection: Connection) -> None:
        """By a write that finds no row, in a caller's transaction; ours have begun with the lock."""
        if not connection.get_execution_options().get("interlock_write"):
            connection.execute(update(_runs).where(false()).values(seq=_runs.c.seq))


class Postgresql(DatabaseDialect):
    """PostgreSQL by psycopg, in READ COMMITTED, on which the lock of a run's row relies."""

    name = "postgresql"
    is_server = True
    writes_in_ctes = True
    sends_prepared = True
    snapshot_options: ClassVar[Mapping[str, Any]] = {
        "isolation_level": "REPEATABLE READ",
        "postgresql_readonly": True,
    }
    insert = staticmethod(postgresql.insert)

    def engine_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Look whether a pooled connection is alive before it is used."""
        return {"pool_pre_ping": True, "isolation_level": "READ COMMITTED", **options}

    def prepare_engine(self, engine: Engine) -> None:
        """Keep people's data out of errors, and leave a server that has become read-only."""
        event.listen(engine, "handle_error", _leave_values_out)
        event.listen(engine, "handle_error", _leave_read_only_server)

    def prepare_connections(self, engine: Engine, idle_transaction_s: float) -> None:
        """Set what the session relies on when a connection is made."""
        limit_ms = str(max(round(idle_transaction_s * 1000), 1))
        limit = "set_config('idle_in_transaction_session_timeout', %s, false)"
        statement = f"SELECT {limit}, set_config('enable_seqscan', 'off', false)"

        def prepare(connection: Any, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
            # Through a pooler that hands statements to different servers no plan is kept, and settings reach others.
            keeps_plans = connection.prepare_threshold is not None
            connection.execute(statement if keeps_plans else f"SELECT {limit}", (limit_ms,))
            connection.commit()

        event.listen(engine, "connect", prepare)

    def take_write_lock(self, connection: Connection) -> None:
        """Nothing: rows are locked one by one."""


DEFAULT_DRIVERS: Final[Mapping[str, str]] = dict.fromkeys(("postgresql", "postgres"), "postgresql+psycopg")
"""SQLAlchemy's names of drivers, for URLs that name a database and no driver."""

_DIALECTS: Final[Mapping[str, DatabaseDialect]] = {each.name: each for each in (Sqlite(), Postgresql())}


def dialect_named(name: str) -> DatabaseDialect:
    """The dialect of that name.

    Raises:
        ConfigurationError: Interlock does not support it.
    """
    try:
        return _DIALECTS[name]
    except KeyError:
        msg = f"database_url: {name!r} is not supported; use sqlite:/// or postgresql://"
        raise ConfigurationError(msg) from None


def dialect_of(bind: Engine | Connection) -> DatabaseDialect:
    """The dialect of an engine or a connection."""
    return dialect_named(bind.dialect.name)


def insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless one with a key of its own is there; waits for a transaction that is about to insert that one.

    Returns:
        Whether it was inserted. Asked by RETURNING: of an INSERT, SQLAlchemy does not keep the row count.
    """
    insert = dialect_of(connection).insert(table).values(row).on_conflict_do_nothing()
    return connection.execute(insert.returning(*table.primary_key)).first() is not None


def _set_pragmas(connection: Any, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    # The driver must not begin transactions by itself: BEGIN IMMEDIATE below is what keeps writers apart.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that will write takes the lock first: a read snapshot cannot be upgraded once it is stale.
    write = connection.get_execution_options().get("interlock_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _leave_read_only_server(context: ExceptionContext) -> None:
    # A server that has become read-only is not the primary any more: connect anew, to whoever is.
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _leave_values_out(context: ExceptionContext) -> None:
    # PostgreSQL's DETAIL and CONTEXT quote rows and documents; its first line names constraint, column and type.
    error, wrapped = context.original_exception, context.sqlalchemy_exception
    said = getattr(getattr(error, "diag", None), "message_primary", None)
    if said is not None:
        error.args = (said,)
        if wrapped is not None:
            wrapped.args = (f"({type(error).__module__}.{type(error).__name__}) {said}", *wrapped.args[1:])
