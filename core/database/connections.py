"""Connections kept open between transactions, and statements prepared on them.

Taking a connection from the pool asks the server whether it is there, and giving it back resets it: on the hot path that costs
more than the statement. A kept connection is only looked at: a server that has gone away has closed the socket, and a closed
socket can be read. What fails on a kept connection closes it, so nothing of a failure is met twice.
"""

from __future__ import annotations

import select
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine

__all__ = ["KeptConnections"]

_AT_MOST: Final = 4  # idle ones; more are used at once where more threads ask, and given back to the pool
_PREPARED: Final = "interlock_prepared"


class KeptConnections:
    """The idle connections of one engine, the last used one first."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._idle: deque[Connection] = deque()
        # They count as the pool's: one at least is left to whoever reads, and a pool of one is left alone.
        pool = engine.pool
        self._at_most = min(_AT_MOST, pool.size() - 1) if isinstance(pool, QueuePool) else 0

    @contextmanager
    def take(self) -> Iterator[Connection]:
        """A connection with no transaction open, for writing; closed where the block raises, else kept."""
        connection = self._draw()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self.give_back(connection)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection that was drawn and is idle again."""
        if connection.closed or connection.invalidated or len(self._idle) >= self._at_most:
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Give every idle connection back to the pool."""
        while self._idle:
            self._idle.pop().close()

    def disown(self) -> list[object]:
        """In a process that was just forked: forget the parent's connections, without a word to their server.

        Returns:
            What must be kept unused, because it would say goodbye when it is thrown away.
        """
        theirs: list[object] = list(self._idle)
        self._idle = deque()
        return theirs

    def send_prepared(self, name: str, statement: str, parameters: Sequence[bytes]) -> Sent:
        """Send one statement as a transaction of its own on PostgreSQL, in libpq's own terms: no layer between costs less.

        Args:
            name: Of the prepared statement.
            statement: With `$1` placeholders.
            parameters: Texts.

        Returns:
            What has the answer; ask it for the rows in any case, since it has a connection.

        Raises:
            DBAPIError: As SQLAlchemy would raise it.
        """
        connection = self._draw()
        try:
            pgconn = self._send(connection, name, statement, parameters)
        except BaseException:
            _throw_away(connection)
            raise
        return Sent(self, connection, pgconn, statement)

    @staticmethod
    def _send(connection: Connection, name: str, statement: str, parameters: Sequence[bytes]) -> Any:
        from psycopg import OperationalError, pq  # noqa: PLC0415 - an optional dependency

        driver: Any = connection.connection.driver_connection
        pgconn = driver.pgconn
        try:
            if driver.prepare_threshold is None:  # a pooler that hands statements to different servers
                pgconn.send_query_params(statement.encode(), parameters)
                return pgconn
            prepared = connection.info.setdefault(_PREPARED, set())
            if name not in prepared:
                _check(pgconn.prepare(name.encode(), statement.encode()), pgconn, statement, pq.ExecStatus.COMMAND_OK)
                prepared.add(name)
            pgconn.send_query_prepared(name.encode(), parameters)
        except OperationalError as error:
            raise _as_sqlalchemy(error, statement, lost=True) from error
        return pgconn

    def _draw(self) -> Connection:
        return self._next() or self._engine.connect().execution_options(interlock_write=True)

    def _next(self) -> Connection | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not _has_gone(connection):
                return connection
            _throw_away(connection)


class Sent:
    """A statement that the server works on, and the connection on which its answer comes."""

    __slots__ = ("_connection", "_kept", "_pgconn", "_statement")

    def __init__(self, kept: KeptConnections, connection: Connection, pgconn: Any, statement: str) -> None:
        self._kept = kept
        self._connection = connection
        self._pgconn = pgconn
        self._statement = statement

    def rows(self) -> list[list[bytes | None]]:
        """Wait for the answer.

        Returns:
            The rows, as texts.

        Raises:
            DBAPIError: As SQLAlchemy would raise it.
        """
        try:
            result = self._read()
        except BaseException:
            _throw_away(self._connection)
            raise
        self._kept.give_back(self._connection)
        return [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]

    def _read(self) -> Any:
        from psycopg import OperationalError, pq  # noqa: PLC0415 - an optional dependency

        pgconn = self._pgconn
        try:
            while pgconn.flush():  # a large result that the socket has not taken at once
                _ready(pgconn.socket, or_writable=True)
                pgconn.consume_input()
            # libpq would wait by itself, but with every other thread of this process.
            while pgconn.is_busy():
                _ready(pgconn.socket)
                pgconn.consume_input()
            result = pgconn.get_result()
            while pgconn.get_result() is not None:  # the end of the answer, behind which the connection is idle
                pass
        except OperationalError as error:
            raise _as_sqlalchemy(error, self._statement, lost=True) from error
        return _check(result, pgconn, self._statement, pq.ExecStatus.TUPLES_OK)


def _throw_away(connection: Connection) -> None:
    """What failed may mean anything: a server that is gone, or no longer the primary."""
    connection.invalidate()
    connection.close()


def _check(result: Any, pgconn: Any, statement: str, expected: int) -> Any:
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


def _has_gone(connection: Connection) -> bool:
    """Whether the server has closed the connection: then there is something to read, its end."""
    pgconn = getattr(connection.connection.driver_connection, "pgconn", None)
    if pgconn is None:
        return False
    return pgconn.status != 0 or _ready(pgconn.socket, wait_ms=0)


def _ready(socket: int, *, or_writable: bool = False, wait_ms: int | None = None) -> bool:
    """Wait until there is something to read, or room to write; by poll, since select knows no descriptor above 1,023."""
    if not hasattr(select, "poll"):  # eventlet takes it away, and makes select() a wait that lets others run
        writers = [socket] if or_writable else []
        ready = select.select([socket], writers, [], None if wait_ms is None else wait_ms / 1000)
        return bool(ready[0] or ready[1])
    poll = select.poll()
    poll.register(socket, select.POLLIN | select.POLLOUT if or_writable else select.POLLIN)
    return bool(poll.poll(wait_ms))
