"""Pins a few connections per process, and runs statements that are prepared on them.

Taking a connection from SQLAlchemy's pool asks the server whether it is there, and giving it back resets it: for a claim or a
completion that costs more than the statement. A pinned connection is only looked at: a server that has gone away has closed the
socket, and a closed socket can be read. Whatever fails on a pinned connection closes it, so no failure is met twice.
"""

from __future__ import annotations

import select
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine

__all__ = ["PendingResult", "PinnedConnections", "PreparedStatement"]

_MOST_IDLE: Final = 4  # more are in use at once where more threads ask; these go back to the pool
_COMMAND_OK: Final = 1  # libpq's ExecStatusType
_TUPLES_OK: Final = 2
_SQLSTATE: Final = ord("C")  # libpq's PG_DIAG_SQLSTATE
_NO_SUCH_STATEMENT: Final = b"26000"  # SQLSTATE: nothing was done
_PREPARED: Final = "interlock_prepared"  # in a connection's info: names of what is prepared on it


@dataclass(frozen=True, slots=True)
class PreparedStatement:
    """A statement for libpq.

    Attributes:
        name: Under which it is prepared.
        sql: With `$1` placeholders.
    """

    name: str
    sql: str


class PinnedConnections:
    """The idle connections of one engine, the last used one first.

    Attributes:
        dbapi: The driver's module.
    """

    def __init__(self, engine: Engine) -> None:
        self.dbapi: Any = engine.dialect.dbapi
        self._engine = engine
        self._idle: deque[Connection] = deque()
        # They count as the pool's: one at least is left to whoever reads, and a pool of one is left alone.
        pool = engine.pool
        self._most_idle = min(_MOST_IDLE, pool.size() - 1) if isinstance(pool, QueuePool) else 0

    @contextmanager
    def take(self) -> Iterator[Connection]:
        """A connection with no transaction open, for writing; closed where the block raises, else pinned again."""
        connection = self._draw()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self.give_back(connection)

    def give_back(self, connection: Connection) -> None:
        """Pin a connection that was drawn and is idle again."""
        if connection.closed or connection.invalidated or len(self._idle) >= self._most_idle:
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Give every idle connection back to the pool."""
        while self._idle:
            self._idle.pop().close()

    def disown(self) -> list[object]:
        """In a process that was just forked: forget the parent's connections.

        Returns:
            What must be kept referenced: collecting an inherited connection would send Terminate on the parent's socket.
        """
        inherited: list[object] = list(self._idle)
        self._idle = deque()
        return inherited

    def send_prepared(self, statement: PreparedStatement, parameters: Sequence[bytes]) -> PendingResult:
        """Send one statement as a transaction of its own on PostgreSQL, by libpq's own calls: any layer between costs more.

        Args:
            statement: Prepared on the connection where it is not yet.
            parameters: As texts.

        Returns:
            The answer to come; it has the connection, so its `rows` must be called.

        Raises:
            DBAPIError: As SQLAlchemy would raise it.
        """
        connection = self._draw()
        try:
            pgconn = self._send(connection, statement, parameters)
        except BaseException:
            _discard(connection)
            raise
        return PendingResult(self, connection, pgconn, statement, parameters)

    def send_again(self, connection: Connection, statement: PreparedStatement, parameters: Sequence[bytes]) -> Any:
        """Prepare a statement anew that the server has forgotten, and send it; returns libpq's connection.

        psycopg deallocates all that is prepared after a ROLLBACK, ours too, where it had prepared statements of its own.
        """
        connection.info.pop(_PREPARED, None)
        return self._send(connection, statement, parameters)

    def _send(self, connection: Connection, statement: PreparedStatement, parameters: Sequence[bytes]) -> Any:
        """Send a statement; returns libpq's connection, on which the answer comes."""
        driver: Any = connection.connection.driver_connection
        pgconn = driver.pgconn
        try:
            if driver.prepare_threshold is None:  # a pooler that hands statements to different servers
                pgconn.send_query_params(statement.sql.encode(), parameters)
                return pgconn
            name = statement.name.encode()
            prepared = connection.info.setdefault(_PREPARED, set())
            if name not in prepared:
                _checked(pgconn.prepare(name, statement.sql.encode()), pgconn, statement.sql, _COMMAND_OK)
                prepared.add(name)
            pgconn.send_query_prepared(name, parameters)
        except self.dbapi.OperationalError as error:
            raise _as_sqlalchemy(error, statement.sql, lost=True) from error
        return pgconn

    def _draw(self) -> Connection:
        return self._next_idle() or self._engine.connect().execution_options(interlock_write=True)

    def _next_idle(self) -> Connection | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not _is_closed_by_server(connection):
                return connection
            _discard(connection)


class PendingResult:
    """The answer to a statement that the server works on."""

    __slots__ = ("_connection", "_connections", "_parameters", "_pgconn", "_statement")

    def __init__(
        self,
        connections: PinnedConnections,
        connection: Connection,
        pgconn: Any,
        statement: PreparedStatement,
        parameters: Sequence[bytes],
    ) -> None:
        self._connections = connections
        self._connection = connection
        self._pgconn = pgconn
        self._statement = statement
        self._parameters = parameters

    def rows(self) -> list[list[bytes | None]]:
        """Wait for the answer.

        Returns:
            The rows, as texts.

        Raises:
            DBAPIError: As SQLAlchemy would raise it.
        """
        try:
            result = self._read()
            if result.error_field(_SQLSTATE) == _NO_SUCH_STATEMENT:
                self._pgconn = self._connections.send_again(self._connection, self._statement, self._parameters)
                result = self._read()
            _checked(result, self._pgconn, self._statement.sql, _TUPLES_OK)
        except BaseException:
            _discard(self._connection)
            raise
        self._connections.give_back(self._connection)
        return [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]

    def _read(self) -> Any:
        pgconn = self._pgconn
        try:
            while pgconn.flush():  # more than the socket takes at once
                _wait(pgconn.socket, or_writable=True)
                pgconn.consume_input()
            # libpq would wait by itself, but holding the interpreter's lock: every other thread would stand still.
            while pgconn.is_busy():
                _wait(pgconn.socket)
                pgconn.consume_input()
            result = pgconn.get_result()
            while pgconn.get_result() is not None:  # until libpq says that the connection is idle
                pass
        except self._connections.dbapi.OperationalError as error:
            raise _as_sqlalchemy(error, self._statement.sql, lost=True) from error
        return result


def _discard(connection: Connection) -> None:
    """Close a connection on which something failed: its server may be gone, or no longer the primary."""
    connection.invalidate()
    connection.close()


def _checked(result: Any, pgconn: Any, statement: str, expected: int) -> Any:
    if result.status == expected:
        return result
    from psycopg import errors  # noqa: PLC0415 - as above

    lost = pgconn.status != 0  # libpq's CONNECTION_OK
    error = errors.error_from_result(result)
    raise _as_sqlalchemy(error, statement, lost=lost) from error


def _as_sqlalchemy(error: Any, statement: str, *, lost: bool) -> DBAPIError:
    from psycopg import Error  # noqa: PLC0415 - as above

    error.args = (error.diag.message_primary or "the connection was lost",)  # the rest may quote people's data
    wrapped = DBAPIError.instance(statement, None, error, Error, connection_invalidated=lost, hide_parameters=True)
    return cast("DBAPIError", wrapped)  # what it makes of an error of the driver


def _is_closed_by_server(connection: Connection) -> bool:
    """Whether the server has closed the connection: then there is something to read, the end of the stream."""
    pgconn = getattr(connection.connection.driver_connection, "pgconn", None)
    if pgconn is None:
        return False
    return pgconn.status != 0 or _wait(pgconn.socket, wait_ms=0)


def _wait(socket: int, *, or_writable: bool = False, wait_ms: int | None = None) -> bool:
    """Wait until there is something to read, or room to write; False where `wait_ms` is over before.

    By poll, since select takes no descriptor above 1,023.
    """
    if not hasattr(select, "poll"):  # eventlet takes it away, and makes select() a wait that lets others run
        writers = [socket] if or_writable else []
        ready = select.select([socket], writers, [], None if wait_ms is None else wait_ms / 1000)
        return bool(ready[0] or ready[1])
    poll = select.poll()
    poll.register(socket, select.POLLIN | select.POLLOUT if or_writable else select.POLLIN)
    return bool(poll.poll(wait_ms))
