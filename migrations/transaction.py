"""The transaction that migrations run in: all of them or none, and one process at a time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import NullPool, event, text
from tenacity import stop_after_delay

from interlock.core.backoff import Backoff
from interlock.core.database.database import open_database
from interlock.core.database.errors import is_transient
from interlock.core.database.retrying import retry_call
from interlock.core.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from interlock.core.database.database import Database

__all__ = ["migrating", "opened"]

T = TypeVar("T")

# Any 64-bit number that no other program locks in this database: the ASCII codes of "intrlock".
_LOCK_KEY = int.from_bytes(b"intrlock", "big")
_PAUSES = Backoff(0.1, 0.1, jitter=1.0)


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """The database at `url`, with no connection left open after the block."""
    database = open_database(url, poolclass=NullPool)
    try:
        if database.dialect == "sqlite":
            _switch_to_wal(database)
        yield database
    finally:
        database.dispose()


def migrating(url: str, work: Callable[[Connection], T]) -> T:
    """Run `work` in one transaction, alone among all processes that migrate this database.

    Who comes second waits, and then finds the work done. On SQLite, BEGIN IMMEDIATE is the lock, and `transact` repeats
    what gave up waiting for it; PostgreSQL's advisory lock goes with the transaction, however that ends.

    Args:
        url: As for `open_database`.
        work: Gets the connection; called again after a transient failure.

    Raises:
        DatabaseBusy: The lock could not be had.
    """
    with opened(url) as database:
        if database.dialect == "sqlite":
            event.listen(database.engine, "connect", _without_cascades)
        return database.transact(lambda connection, _: _run_locked(connection, work))


def _run_locked(connection: Connection, work: Callable[[Connection], T]) -> T:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    result = work(connection)
    if connection.dialect.name == "sqlite":
        _check_references(connection)
    return result


def _switch_to_wal(database: Database) -> None:
    # The first connection to a new file does it. Of two at once, SQLite tells one "locked" without letting it wait.
    def connect() -> None:
        database.engine.connect().close()

    retry_call(connect, when=is_transient, backoff=_PAUSES, stop=stop_after_delay(30))


def _without_cascades(dbapi_connection: sqlite3.Connection, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    # SQLite alters a table by copying and dropping it, and a dropped parent would take its children's rows along. It
    # cannot be switched off inside the transaction.
    dbapi_connection.execute("PRAGMA foreign_keys = OFF")


def _check_references(connection: Connection) -> None:
    broken = connection.execute(text("PRAGMA foreign_key_check")).first()
    if broken is not None:
        msg = f"the migration would leave rows of {broken[0]} without their {broken[2]}; nothing was changed"
        raise ConfigurationError(msg)
